"""The captioning service: `showtell serve`. Nothing here imports torch.

::

    settings     what the service is told: model, limits, keys          -> all below
    problems     everything that can go wrong, as problem+json (RFC 9457)
    schemas      what goes in and out, as OpenAPI says it
    options      a client's options as settings of the search
    bodies       the body of a request, read within limits
    keys         who may ask, and how much
    cache        captions that were written before
    batcher      the thread that captions the pictures of all clients together
    engine       from the bytes of a picture to its captions; the queue and its limit
    answers      captions as the API gives them
    streams      words as they are decided
    routes       the API, path by path
    middleware   around every request: its number, its log line, its headers; who is let in
    app          all of it as one ASGI application
    protocol     HTTP itself: time and room for headers
    processes    one process or several, started and ended
"""
