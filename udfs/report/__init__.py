"""The report of a selection: figures and pictures in, one self-contained HTML page out.

histogram_bins.py  the thresholds at which a signal is counted, and histogram bins made of them
thumbnails.py      the pairs on the page, and thumbnails made from image bytes (on executors)
text_format.py     formats numbers and makes hostile text safe to read
charts.py          Vega-Lite specifications of the charts
page.py            renders the HTML from page.html.j2, page.css and page.js
"""
