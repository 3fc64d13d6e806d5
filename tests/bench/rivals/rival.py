"""How a rival is asked: the same lines as `chorale-bench contender` speaks.

On start a rival says once, in JSON, its versions and its answer to the input, so that what is compared is known to do the
same. Then each line it is given is a number of rounds, and each line it gives is the seconds that they took.
"""

import json
import sys
import time


def serve(versions, work, answer=None):
    """Answers until there is nothing more to read. `work()` is one round; `answer` makes a list of what it returns."""
    found = work()
    print(json.dumps({"versions": versions, "answer": [] if answer is None else answer(found)}), flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        for _ in range(int(line)):
            work()
        print(time.perf_counter() - started, flush=True)
