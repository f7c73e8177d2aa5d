"""The console for operators and the portal for customers: pages that show and change what the commands do.

An ASGI application of HTML from templates. It works without a script; `static/console.js` renews parts in place.
"""
