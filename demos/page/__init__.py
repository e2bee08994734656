"""Everything behind `demos/app.py`.

Reading order: limits, store, asking, jobs, engine, pictures, examples, work, hear, guard, site; `static/` is what the
browser gets.
"""
