"""The pictures of the documentation, made from what really runs.

`make pictures` writes them to docs/pictures.

dashboard  Grafana's dashboard of the chart: its panels, and what Prometheus answers to their queries
values     numbers as Grafana writes them, by unit
drawing    the dashboard's grid and its panels, drawn with matplotlib as one SVG
life       minutes of a small cluster's life, with a load and an outage, for the dashboard to show
terminal   what a program showed on a terminal, as an SVG
"""
