"""Everything behind `demos/app.py`.

Reading order: limits, store, queries, jobs, engine, examples, work, guard, site. `static/` is what the browser gets.
"""
