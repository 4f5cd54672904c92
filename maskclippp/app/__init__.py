"""The web page of ``maskclippp serve``: a picture and words in, segments out.

``studio`` answers requests and keeps nothing about who asked; ``markup`` writes HTML; ``page`` is
the only module that needs gradio.
"""
