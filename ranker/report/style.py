"""The page's style sheet and script."""

CSS = """
:root{--paper:#fff;--raised:#f6f7f9;--ink:#1b2430;--soft:#5d6878;--line:#e3e7ec;--grid:#e9ecf0;
--accent:#2a62c4;--good:#0c6b5a;--good-bg:#e3f4f0;--bad:#9a4a06;--bad-bg:#fdf0e2;--flat:#56606f;
--flat-bg:#eef0f3;--heat-rgb:42,98,196}
@media (prefers-color-scheme:dark){:root{--paper:#12161c;--raised:#1a2029;--ink:#e5e9ef;
--soft:#9aa6b6;--line:#2b333f;--grid:#262e39;--accent:#7faaf5;--good:#63d3bb;--good-bg:#12332d;
--bad:#f0ab64;--bad-bg:#3a2713;--flat:#a9b3c1;--flat-bg:#262e39;--heat-rgb:70,128,226}}
*{box-sizing:border-box}
html{scroll-behavior:smooth;scroll-padding-top:64px;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);overflow-wrap:anywhere;
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
header,main,footer,nav>div{max-width:1280px;margin:0 auto;padding:0 24px}
header{padding-top:52px;padding-bottom:30px}
h1{font-size:clamp(27px,4.2vw,40px);line-height:1.15;letter-spacing:-.022em;margin:0 0 8px;
font-weight:680;text-wrap:balance}
h2{font-size:25px;line-height:1.25;letter-spacing:-.014em;margin:0 0 6px;font-weight:650}
h3{font-size:16px;margin:30px 0 8px;font-weight:650}
.subtitle{font-size:17px;color:var(--soft);margin:0}
.headlines{list-style:none;margin:26px 0 0;padding:6px 22px;background:var(--raised);
border-radius:12px;border-left:4px solid var(--accent)}
.headlines li{padding:9px 0;font-size:17px}
.headlines li+li{border-top:1px solid var(--line)}
nav{position:sticky;top:0;z-index:5;background:var(--paper);border-bottom:1px solid var(--line)}
nav>div{display:flex;gap:4px;overflow-x:auto;scrollbar-width:none}
nav a{flex:none;padding:13px 10px;font-size:14.5px;color:var(--soft);text-decoration:none;
border-bottom:2px solid transparent}
nav a:first-child{margin-left:-10px}
nav a:hover,nav a:focus-visible,nav a.here{color:var(--ink);border-color:var(--accent)}
section{padding:40px 0 8px}
section+section{border-top:1px solid var(--line);margin-top:34px}
.how{color:var(--soft);margin:0 0 20px;max-width:74ch}
.scroll{overflow-x:auto;margin:0 0 8px}
.scroll:focus-visible,summary:focus-visible,nav a:focus-visible{outline:2px solid var(--accent);
outline-offset:2px;border-radius:4px}
table{border-collapse:collapse;width:100%;font-size:14.5px}
th,td{overflow-wrap:break-word;max-width:380px;padding:9px 14px 9px 0;
text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
th:last-child,td:last-child{padding-right:0}
thead th{font-size:13px;font-weight:550;color:var(--soft);white-space:nowrap;vertical-align:bottom;
border-bottom-color:var(--soft)}
tbody th{font-weight:600;min-width:64px}
tr>:first-child{position:sticky;left:0;background:var(--paper)}
.narrow{max-width:760px}
.scroll+.how{margin-top:34px;margin-bottom:0}
tbody tr:last-child>*{border-bottom:0}
.num,td.num,th.num{text-align:right;font-variant-numeric:tabular-nums}
td.num{white-space:nowrap}
.value{font-weight:550}
.interval,.about,.none,.quiet{color:var(--soft);font-size:12.5px;font-weight:400}
td .interval{display:block;line-height:1.35}
.about{display:block;line-height:1.3}
td .none{white-space:normal;display:inline-block;max-width:200px}
.verdict{display:inline-block;font-size:12.5px;font-weight:600;line-height:1.5;padding:1px 9px;
border-radius:20px;white-space:nowrap}
td.num .verdict{margin-right:5px}
.better{color:var(--good);background:var(--good-bg)}
.worse{color:var(--bad);background:var(--bad-bg)}
.cannot_tell{color:var(--flat);background:var(--flat-bg)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;
margin:0 0 26px}
.tiles div{display:flex;flex-direction:column-reverse;justify-content:flex-end;
background:var(--raised);border-radius:10px;padding:13px 16px}
.tiles dt{color:var(--soft);font-size:13px;line-height:1.35}
.tiles dd{margin:0;font-size:20px;font-weight:620;letter-spacing:-.01em;line-height:1.3;
font-variant-numeric:tabular-nums}
.chart{margin:18px 0;min-width:0}
figcaption{font-size:14px;font-weight:600;margin:0 0 2px}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:2px 20px;margin:4px 0 2px;padding:0;
font-size:13px;color:var(--soft)}
.plot{width:100%;min-width:0}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:22px 30px;
margin:0 0 18px}
.grid .chart{margin:0}
details{border-top:1px solid var(--line);margin-top:18px;padding-top:4px}
summary{cursor:pointer;padding:9px 0;font-size:14.5px;font-weight:600;color:var(--accent)}
.ratios{list-style:none;display:flex;flex-wrap:wrap;gap:6px 26px;padding:0;margin:0 0 24px;
font-size:14.5px;font-variant-numeric:tabular-nums}
.ratios b{font-weight:600}
.heat td,.heat th{padding:3px 3px 3px 0;vertical-align:middle;border:0}
.heat thead th{padding:0 3px 8px 0;border:0;text-align:center;white-space:normal}
.heat thead th:first-child,.heat thead th:last-child{text-align:left}
.heat td.num span{display:block;min-width:44px;text-align:center;padding:8px 2px;border-radius:6px;
font-size:13.5px;background:rgba(var(--heat-rgb),var(--heat))}
.heat td.num .on-dark{color:#fff}
.heat td:last-child,.heat thead th:last-child{padding-left:14px}
.banner{background:var(--bad-bg);color:var(--bad);border-radius:10px;padding:13px 18px;
margin:0 0 20px;font-weight:550}
.conclusion{font-size:18px;margin:0 0 20px}
.conclusion .verdict{font-size:14px;margin-right:6px}
.bars{list-style:none;margin:0;padding:0;font-size:14.5px}
.bars li{display:grid;grid-template-columns:minmax(90px,170px) 1fr 92px;gap:14px;
align-items:center;padding:4px 0}
.bars .track span{display:block;height:12px;border-radius:3px;background:var(--accent);
min-width:2px}
.facts{display:grid;gap:6px;margin:0 0 18px;font-size:14.5px}
.facts div{display:grid;grid-template-columns:minmax(110px,220px) 1fr;gap:14px}
.facts dt{color:var(--soft)}
.facts dd{margin:0;font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;
font-size:13.5px}
pre{background:var(--raised);border-radius:10px;padding:16px 18px;overflow-x:auto;
font:13px/1.55 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:normal}
.absent{color:var(--soft);border-top:1px solid var(--line);margin:44px 0 0;padding-top:16px}
footer{color:var(--soft);font-size:13.5px;padding-top:30px;padding-bottom:56px}
.hidden{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);
white-space:nowrap}
.skip{position:absolute;left:-999px}
.skip:focus{left:12px;top:12px;background:var(--paper);padding:8px 14px;z-index:9}
@media (max-width:600px){header,main,footer,nav>div{padding-left:18px;padding-right:18px}
header{padding-top:32px}.headlines{padding:4px 16px}.headlines li{font-size:16px}
section{padding-top:34px}tr>:first-child{max-width:42vw}
.tiles{grid-template-columns:1fr 1fr}.tiles div{padding:13px 12px}.tiles dd{font-size:17px}
.grid{grid-template-columns:1fr}
.bars li{grid-template-columns:96px 1fr 84px;gap:10px}.facts div{grid-template-columns:1fr;gap:0}}
@media print{nav,.skip{display:none}section{break-inside:avoid-page}}
"""

# Draws every figure in the colours of the current theme, and again when the theme changes.
# `data-charts` tells whoever waits for the page that all are drawn.
SCRIPT = """
"use strict";
(() => {
  const root = document.documentElement;
  const template = () => {
    const css = getComputedStyle(root);
    const color = (name) => css.getPropertyValue(name).trim();
    const axis = {gridcolor: color("--grid"), linecolor: color("--grid"), showline: false,
      zerolinecolor: color("--grid"), tickfont: {size: 12, color: color("--soft")},
      title: {font: {size: 12, color: color("--soft")}}};
    return {layout: {
      font: {family: getComputedStyle(document.body).fontFamily, size: 12.5, color: color("--ink")},
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", xaxis: axis, yaxis: axis,
      hoverlabel: {bgcolor: color("--raised"), bordercolor: color("--line"),
        font: {color: color("--ink"), size: 13}, align: "left"}}};
  };
  const draw = async () => {
    for (const figure of document.querySelectorAll("figure.chart")) {
      const {data, layout} = JSON.parse(figure.querySelector("script").textContent);
      layout.template = template();
      await Plotly.react(figure.querySelector(".plot"), data, layout,
        {responsive: true, displayModeBar: false});
    }
    root.dataset.charts = "drawn";
    root.dispatchEvent(new Event("charts-drawn"));
  };
  const links = [...document.querySelectorAll("nav a")];
  const mark = () => {
    const passed = links.filter((link) =>
      document.querySelector(link.hash).getBoundingClientRect().top < 120);
    const here = passed[passed.length - 1];
    for (const link of links) link.classList.toggle("here", link === here);
  };
  addEventListener("scroll", mark, {passive: true});
  mark();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
})();
"""
