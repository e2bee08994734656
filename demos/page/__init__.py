"""Everything behind `demos/app.py`.

Reading order: limits, store, queries, jobs, engine, examples, results, work, guard, site. The browser gets `static/`.
"""
