"""The text of the page, for jinja2; see ``page``."""

TEMPLATE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Attention maps: {{ facts[0][1] }}</title>
<style>
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; margin: 0 auto;
  max-width: 1240px; padding: 1.5rem; }
h1 { font-size: 1.7rem; margin: 0 0 .5rem; }
h2 { font-size: 1.3rem; margin: 2.2rem 0 .3rem; }
h3 { font-size: 1.05rem; margin: 1.4rem 0 .2rem; }
h4 { font-size: .95rem; font-weight: 600; margin: 1rem 0 .3rem; }
p { margin: .2rem 0 .8rem; max-width: 75ch; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem;
  margin: .5rem 0; }
dt { opacity: .7; } dd { margin: 0; overflow-wrap: anywhere; }
details { border-top: 1px solid #8886; padding: .7rem 0; }
summary { cursor: pointer; font-size: 1.1rem; }
summary span { font-size: .9rem; opacity: .7; margin-left: .5rem; }
table { border-collapse: collapse; font-size: .85rem; margin: .6rem 0; }
th, td { padding: .2rem .7rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid #8884; font-variant-numeric: tabular-nums; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
.wide { overflow-x: auto; }
.wide img, .plot { max-width: 100%; height: auto; display: block;
  background: #fff; border-radius: 4px; }
.grid { display: grid; gap: 1rem .9rem;
  grid-template-columns: repeat(auto-fill, minmax(215px, 1fr)); }
.grid.large { grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); }
figure { margin: 0; min-width: 0; }
figure img { display: block; width: 100%; height: auto; border-radius: 3px; }
figcaption { font-size: .8rem; margin-top: .25rem; overflow-wrap: anywhere; }
figcaption span { opacity: .7; display: block; }
.scale { display: flex; align-items: center; gap: .4rem; font-size: .78rem;
  font-variant-numeric: tabular-nums; }
.scale i { flex: 1; height: .55rem; border-radius: 2px;
  background: linear-gradient(to right, {{ gradient }}); }
</style>
</head>
<body>
<h1>Attention maps</h1>
<dl>{% for name, value in facts %}<dt>{{ name }}</dt><dd>{{ value }}</dd>
{% endfor %}</dl>

<h2>Detections</h2>
<p>Boxes, and masks if the detector has them, with a score of at least
{{ score_thr }}; the label is the class and the score in percent.</p>
<div class="grid large">
{% for picture in detections %}<figure>
<img src="{{ picture.uri }}" alt="detections in {{ picture.name }}">
<figcaption>{{ picture.name }} <span>{{ picture.note }}</span></figcaption>
</figure>
{% endfor %}</div>
{% if alphas %}
<h2>Alpha by depth</h2>
<p>A gate multiplies its features by 1 + alpha (g &minus; 1): at alpha = 0 it
leaves them as they are, at 1 it is the paper's module, and below 0 it is
reversed, so that a low g strengthens.</p>
<img class="plot" src="{{ alphas.uri }}" alt="alpha over the depth">
{% endif %}
{% if stages %}
<h2>Gates by stage</h2>
<p>A gate multiplies features by its map g, which has no unit: 1 leaves them
as they are, 0 switches them off{% if alphas %}; with an alpha it multiplies by
1 + alpha (g &minus; 1) instead, the factor in the tables{% endif %}.
A gate with a value for each channel and each position is shown twice: its
mean over positions among the channel weights, its mean over channels as a
heat map.</p>
{% for stage in stages %}
<details open>
<summary><b>{{ stage.name }}</b> <span>{{ stage.about }}</span></summary>
<div class="wide"><table>
<tr>{% for i in used %}<th title="{{ head[i][1] }}">{{ head[i][0] }}</th>
{% endfor %}</tr>
{% for line in stage.table %}<tr>{% for i in used %}<td>{{ line[i] }}</td>
{%- endfor %}</tr>
{% endfor %}</table></div>
{% if stage.channels %}
<h3>Channel weights</h3>
<p>Each plot is one gate, the weight g of each channel over the channel's
index{{ curves }}; curves that lie on each other mean that the gate treats all
images alike. Each plot has its own vertical scale.</p>
<img class="plot" src="{{ stage.channels.uri }}"
 alt="channel weights of {{ stage.name }}">
{% endif %}
{% if stage.rows %}
<h3>Heat maps</h3>
<p>Each picture is one gate: red where its g is greatest in this image, blue
where it is least; the bar below has the g at both ends{% if alphas %}, and
where alpha is negative it is blue that strengthens{% endif %}.</p>
{% for row in stage.rows %}
<h4>{{ row.image }}</h4>
<div class="grid">
{% for picture in row.pictures %}<figure>
<img src="{{ picture.uri }}" alt="{{ picture.name }} over {{ row.image }}">
<figcaption>{{ picture.name }} <span>{{ picture.note }}</span>
<div class="scale">{{ picture.low }}<i></i>{{ picture.high }}</div>
</figcaption>
</figure>
{% endfor %}</div>
{% endfor %}
{% endif %}
</details>
{% endfor %}
{% endif %}
{% if without %}
<h2>Attention without a map</h2>
<p>These modules are in the network, too, and have no map of the image to
show.</p>
<dl>{% for name, reason in without %}<dt>{{ name }}</dt><dd>{{ reason }}</dd>
{% endfor %}</dl>
{% endif %}
</body>
</html>
"""
