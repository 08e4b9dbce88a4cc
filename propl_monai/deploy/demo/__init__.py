"""`propl demo`: one page, served from this machine, to try the model in a browser.

In: weights; files that the page sends. Out: masks, measurements, files to download. All of it stays in memory, until the page
is closed. Must not know: labels, data sets, other machines.

The page is `page.html`, `page.css`, `page.js` (controls) and `picture.js` (masks, brush); it needs nothing from elsewhere.

Tested elsewhere: `app` by `test_service`, `test_guard` and `test_demo_in_browser`; `saving` by `test_service`.
"""
