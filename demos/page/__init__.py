"""Everything behind `demos/app.py`.

Reading order: limits, store, jobs, engine, pictures, examples, work, guard, site; `static/` is what the browser gets.
"""
