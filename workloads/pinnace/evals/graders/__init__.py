"""Graders: pure rules and LLM judges. A judge that fails is neither right nor wrong."""

from .grade import Answered, Grade, Grader, Profile, Verdict
from .judge import Judge, JudgeGrader, JudgePrompt
from .rules import RuleGrader

__all__ = [
    "Answered",
    "Grade",
    "Grader",
    "Judge",
    "JudgeGrader",
    "JudgePrompt",
    "Profile",
    "RuleGrader",
    "Verdict",
]
