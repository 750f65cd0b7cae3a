"""The report of a selection: figures and pictures in, one self-contained HTML page out.

histogram_bins.py  the thresholds at which a signal is counted, and bins made of them
thumbnails.py      what the page shows of one pair, and thumbnails of image bytes (on executors)
text_format.py     numbers and hostile text, made fit to read
charts.py          Vega-Lite specifications of the charts
page.py            all of it as HTML: page.html.j2, page.css, page.js
"""
