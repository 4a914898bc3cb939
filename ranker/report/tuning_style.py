"""Rules for the sliders, the live values and the moving list."""

CSS = """
.desk{display:grid;grid-template-columns:minmax(0,5fr) minmax(0,6fr);gap:14px 44px;
align-items:start}
.desk>*{min-width:0}
.choices{display:flex;flex-wrap:wrap;gap:10px 22px;margin:0 0 14px}
.choices label,.pick{display:flex;flex-direction:column;gap:3px;font-size:13px;color:var(--soft);
min-width:0}
select,button{font:inherit;font-size:15px;color:var(--ink);background:var(--raised);
border:1px solid var(--line);border-radius:8px;padding:7px 11px;max-width:100%}
button{cursor:pointer;font-weight:600}
button:hover:enabled,select:hover{border-color:var(--accent)}
button:disabled{opacity:.5;cursor:default}
select:focus-visible,button:focus-visible,input:focus-visible{outline:2px solid var(--accent);
outline-offset:2px}
.sliders{list-style:none;margin:0;padding:0}
.sliders li{display:grid;grid-template-columns:minmax(86px,132px) minmax(0,1fr) 58px;gap:12px;
align-items:center;padding:5px 0;font-size:14.5px}
.sliders label{font-weight:600;line-height:1.25}
.sliders label span{display:block;font-weight:400;color:var(--soft);font-size:12.5px}
.sliders input{width:100%;margin:0;accent-color:var(--accent)}
.sliders output{text-align:right;font-variant-numeric:tabular-nums}
.live dd[data-sign="1"]{color:var(--good)}
.live dd[data-sign="-1"]{color:var(--bad)}
.live{margin-bottom:14px}
.list table{font-size:14px}
.list td,.list th{padding:7px 12px 7px 0}
.list td.quiet{white-space:nowrap}
.up{color:var(--good);font-weight:600}
.down{color:var(--bad);font-weight:600}
.same{color:var(--soft)}
.pick{max-width:460px;margin:0 0 12px}
.copying{display:flex;flex-wrap:wrap;gap:8px 16px;align-items:center;margin:12px 0 0}
@media (max-width:900px){.desk{grid-template-columns:minmax(0,1fr)}}
"""
