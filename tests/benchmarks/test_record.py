import json

import numpy as np
import page
import pytest
import record
from scipy import stats


def test_intervals_of_a_median_cover_it_at_least_95_times_in_100():
    for num in (6, 9, 20, 41):
        figure = record.median_figure([float(x) for x in range(num)])
        cut = int(figure.ci_low)
        assert figure.ci_high == num - 1 - cut
        assert stats.binom.cdf(cut, num, 0.5) * 2 <= 0.05
        assert stats.binom.cdf(cut + 1, num, 0.5) * 2 > 0.05


def test_few_rounds_give_their_whole_range_and_one_none():
    assert record.median_figure([3.0]) == record.Figure(value=3.0)
    assert record.median_figure([3.0, 1.0, 2.0]) == record.Figure(value=2, ci_low=1, ci_high=3)


def test_ratios_are_taken_within_a_round():
    # the machine was half as fast in the second round: the ratio is 2 in all
    figure = record.ratio_figure([20.0, 10.0, 20.0], [10.0, 5.0, 10.0])
    assert (figure.value, figure.ci_low, figure.ci_high) == (2.0, 2.0, 2.0)
    with pytest.raises(ValueError, match="both sides in every round"):
        record.ratio_figure([1.0], [1.0, 2.0])


def test_a_quick_run_prints_one_json_object(capsys, tmp_path):
    arguments = record.Arguments(quick=True, output=tmp_path)
    figures = {"speed_per_s": record.Figure(value=2.5)}
    record.publish("example", figures, arguments=arguments, seeds=[7])
    printed = json.loads(capsys.readouterr().out)
    assert printed["benchmark"] == "example"
    assert printed["figures"] == {"speed_per_s": {"value": 2.5, "ci_low": None, "ci_high": None}}
    assert printed["machine"]["cores"] >= 1
    assert list(tmp_path.iterdir()) == []


def test_a_full_run_writes_its_record_and_the_page_shows_it(capsys, tmp_path):
    arguments = record.Arguments(quick=False, output=tmp_path)
    figures = {
        "a_ranker_examples_per_s": record.median_figure([1_234.0, 1_250.0]),
        "a_plain_loop_examples_per_s": record.median_figure([1_300.0, 1_310.0]),
        "time_to_auc_over_reference": record.Figure(value=None),
        "</script><b>": record.Figure(value=-0.004, ci_low=-0.007, ci_high=0.001),
    }
    record.publish("example", figures, arguments=arguments, seeds=[7], settings={"rows": 5})
    assert capsys.readouterr().out == ""
    written = json.loads((tmp_path / "example.json").read_text())
    assert written["seeds"] == [7]
    html = page.render_page([written])
    assert html.count("<section") == 1
    assert "1,242" in html  # the median of 1,234 and 1,250
    assert "</script><b>" not in html.replace("</script><body>", "")
    assert 'src="http' not in html


def test_publish_refuses_what_json_can_not_say(tmp_path):
    arguments = record.Arguments(quick=True, output=tmp_path)
    with pytest.raises(ValueError, match="JSON"):
        record.publish("example", {"x": record.Figure(value=np.inf)}, arguments=arguments, seeds=[])
