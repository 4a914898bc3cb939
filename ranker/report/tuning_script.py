"""The instrument's script: scores, orders and values as Python computes them, live.

`window.rankerTuning` offers the pure functions to whoever checks them against Python's.
"""

SCRIPT = r"""
"use strict";
(() => {
  const FLOOR = 1e-6;  // as in Python: a predicted 0 must not decide a product alone

  // P(rated and liked) = P(liked | rated) P(rated)
  const unconditional = (predictions, tasks) => Object.fromEntries(
    tasks.filter((task) => task.name in predictions).map((task) => {
      const values = Float64Array.from(predictions[task.name]);
      if (task.conditional_on !== null) {
        const condition = predictions[task.conditional_on];
        for (let i = 0; i < values.length; i++) values[i] *= condition[i];
      }
      return [task.name, values];
    }));

  // share of a list's other rows that are below, equal ones counting half; .5 in a list of one
  const rankNormalised = (values, starts) => {
    const ranks = new Float64Array(values.length);
    starts.forEach((start, list) => {
      const stop = list + 1 < starts.length ? starts[list + 1] : values.length;
      const order = Array.from({length: stop - start}, (_, i) => start + i)
        .sort((a, b) => values[a] - values[b]);
      for (let first = 0; first < order.length;) {
        let last = first;
        while (last + 1 < order.length && values[order[last + 1]] === values[order[first]]) last++;
        const rank = order.length > 1 ? (first + last) / 2 / (order.length - 1) : 0.5;
        for (let i = first; i <= last; i++) ranks[order[i]] = rank;
        first = last + 1;
      }
    });
    return ranks;
  };

  // what a task adds to the (logarithm of the) score for a weight of 1
  const term = (values, task, combination, starts) => {
    const sign = task.direction === "positive" ? 1 : -1;
    switch (combination) {
      case "weighted_product":
        return task.kind === "binary"
          ? values.map((p) => Math.log((sign > 0 ? p : 1 - p) + FLOOR))
          : values.map((v) => sign * Math.log1p(Math.max(v, 0)));
      case "weighted_sum":
        return values.map((v) => sign * v);
      case "rank_normalised_sum":
        return rankNormalised(values, starts).map((v) => sign * v);
      default:
        throw new Error(`unknown combination ${combination}`);
    }
  };

  const terms = (predictions, tasks, combination, starts) => {
    const multiplied = unconditional(predictions, tasks);
    return Object.fromEntries(tasks.filter((task) => task.name in multiplied).map(
      (task) => [task.name, term(multiplied[task.name], task, combination, starts)]));
  };

  // orders rows as the score does: of a weighted product it is the logarithm
  const linearScore = (termByTask, weights, numRows, combination) => {
    const score = new Float64Array(numRows);
    let total = 0;
    for (const [name, values] of Object.entries(termByTask)) {
      const weight = weights[name] ?? 0;
      total += weight;
      if (weight > 0) for (let i = 0; i < numRows; i++) score[i] += weight * values[i];
    }
    // ranks tie often: the item id decides between equal sums, not their last digits
    return combination === "rank_normalised_sum" && total > 0
      ? score.map((v) => Math.round(v / total * 1e12) / 1e12 * total) : score;
  };

  const score = ({predictions, tasks, weights, combination, starts}) => {
    const weighed = tasks.filter((task) => (weights[task.name] ?? 0) > 0);
    const needed = tasks.filter((task) => weighed.includes(task)
      || weighed.some((other) => other.conditional_on === task.name));
    const given = Object.fromEntries(needed.map((task) => [task.name, predictions[task.name]]));
    const numRows = Object.values(given)[0].length;
    const termByTask = terms(given, needed, combination, starts);
    const linear = linearScore(termByTask, weights, numRows, combination);
    return combination === "weighted_product" ? linear.map(Math.exp) : linear;
  };

  // [N] rows, list after list, each by falling score; equal scores stay by item id
  const ordered = (linear, starts) => {
    const order = Int32Array.from(linear, (_, i) => i);
    starts.forEach((start, list) => order
      .subarray(start, list + 1 < starts.length ? starts[list + 1] : order.length)
      .sort((a, b) => linear[b] - linear[a] || a - b));
    return order;
  };

  // task -> mean of the observed labels, weighted by the discount of their ranks
  const valuesOf = (order, starts, labels, at) => {
    const discounts = Array.from({length: at}, (_, i) => 1 / Math.log2(i + 2));
    return Object.fromEntries(Object.entries(labels).map(([task, label]) => {
      let above = 0, below = 0;
      starts.forEach((start, list) => {
        const stop = list + 1 < starts.length ? starts[list + 1] : order.length;
        for (let i = start; i < stop && i - start < at; i++) {
          const value = label[order[i]];
          if (value === value) {  // NaN: not observed
            above += discounts[i - start] * value;
            below += discounts[i - start];
          }
        }
      });
      return [task, below > 0 ? above / below : NaN];
    }));
  };

  // task or family -> relative change, better being positive
  const changesOf = (values, today, tasks) => {
    const changes = {};
    for (const task of tasks.filter((one) => one.is_judged)) {
      const {name} = task, sign = task.direction === "positive" ? 1 : -1;
      changes[name] = sign * (values[name] - today[name]) / Math.abs(today[name]);
    }
    for (const family of ["engagement", "satisfaction"]) {
      changes[family] = tasks
        .filter((one) => one.is_judged && one.family === family && one.importance > 0)
        .reduce((sum, one) => sum + one.importance * changes[one.name], 0);
    }
    return changes;
  };

  const plain = (value) => {
    const text = String(Number(value.toPrecision(6)));
    return text.includes("e") ? value.toFixed(12) : text;
  };
  const yaml = (combination, weights) => `combination: ${combination}\nweights:\n`
    + Object.entries(weights).map(([k, v]) => `  ${JSON.stringify(k)}: ${plain(v)}\n`).join("");

  window.rankerTuning = {score, termsOf: terms, linearScore, ordered, valuesOf, changesOf, yaml};
})();
"""
