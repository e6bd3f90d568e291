"""The pictures of the documentation, made from real runs.

`make pictures` writes them to docs/pictures.

dashboard  the chart's Grafana dashboard: its panels, and Prometheus's answers to their queries
values     numbers in Grafana's format, by unit
drawing    the dashboard drawn with matplotlib as one SVG
life       a few minutes of a small cluster with load and an outage, for the dashboard
terminal   the terminal output of a program as an SVG
"""
