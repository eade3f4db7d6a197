"""The HTTP service over the indexes of a dataset. This page is its contract; `/openapi.json` says it to machines.

    GET  /                          the page; its modules and CSS are /page/FILE, plotly.js is /vendor/plotly.min.js
    GET  /indexes                   [{name, modality, dim, kind, metric, rows, generation, recall,
                                      queries: modalities that can ask this index,
                                      encoder: {name, spec, space, revision},
                                      fields: [{name, type: text|number|bool, values: the 50 commonest, min, max}],
                                      problem: null, or why its newest generation cannot be opened}]
                                    of an index of which no generation can be opened: {name, problem}
    POST /search                    {index: name or [names],
                                     terms: [{text} | {image: base64} | {audio: base64} | {key} | {vector: [...]},
                                             each with "weight" if it is not 1; negative: less like this],
                                     k: 20, where: [{field, op, value}], at_least: score or null,
                                     fold: null, "sample" or "duplicates"}
                                    op is one of = != < <= > >= ~ ("~": contains); value a text, a number or a bool
                                 -> {answers: [{index, modality, hits: [{id, row, key, score, caption, modality, media,
                                      start, end, metadata}]}], seconds}
                                    media is null where there are no shards; start and end where a row is a window
    GET  /samples/ID                {id, key, caption, metadata, parts: {image: {suffix, size, type, url}, ...}}
    GET  /samples/ID/MODALITY       the bytes; Range gives 206; thumbnail=SIDE a small picture, upright, as WebP
                                    both with ?key=KEY, as media and url have it: 409 when the shards were made again
                                    since, and the sample of this number is another one
    GET  /indexes/NAME/map?field=F  columns {id, key, x, y, value, caption} of at most 20,000 rows in two dimensions
    GET  /health                    {status: ok|degraded, problem}; degraded: an index cannot be opened, all others are
                                    answered for
    GET  /metrics                   for Prometheus
                                    every GET can be a HEAD

An error is {"error": "what, why, what to do"} with 400 (also: a Host or Origin that is not allowed), 401 (send
`Authorization: Bearer KEY`; the page and /health need no key), 404, 408, 409, 413, 415, 416, 422, 503 (try again
when there is a Retry-After) or 504.
"""
