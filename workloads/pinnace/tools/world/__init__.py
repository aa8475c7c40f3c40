"""The offline world: a synthetic web that is the same for the same seed on every machine (docs/catalogue.md).

People, places, companies, events and papers with consistent facts, on linked pages, in tables and in PDFs; a search
index over them; and questions of several hops whose answers and evidence are known.
Everything is made here, so nothing in it has a licence or a real person behind it. `tasks` makes Scout, the benchmark
for evaluation and reinforcement learning; `questions` makes short ones of other kinds, for tests.
"""

from pinnace.tools.world.browse import Found, Opened, find, open_page
from pinnace.tools.world.errors import NoSuchPage, WorldError
from pinnace.tools.world.index import Hit, Index, Results
from pinnace.tools.world.questions import Question, Step, is_right, questions
from pinnace.tools.world.scout import Task, tasks
from pinnace.tools.world.settings import Settings
from pinnace.tools.world.site import Document, World, build

__all__ = [
    "Document",
    "Found",
    "Hit",
    "Index",
    "NoSuchPage",
    "Opened",
    "Question",
    "Results",
    "Settings",
    "Step",
    "Task",
    "World",
    "WorldError",
    "build",
    "find",
    "is_right",
    "open_page",
    "questions",
    "tasks",
]
