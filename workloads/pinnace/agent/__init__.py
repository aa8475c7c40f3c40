"""The agent loop, context policies and refinement: one loop for RL and for evaluation (docs/agent.md)."""

from .agent import Agent, Task
from .answer import AnswerRule
from .dialect import DIALECTS
from .events import NOT_THE_AGENT, Ended, Event, Sampled, Termination, Usage
from .fold import Folder
from .guards import Limits
from .log import DamagedLog, EventLog, FileLog, read_events
from .loop import run
from .model import (
    ContextTooLong,
    Endpoint,
    Model,
    ModelError,
    ModelRefused,
    ModelUnavailable,
    Patience,
    Reply,
    Sampling,
    ToolRequest,
)
from .policy import Policy, PolicyError, find_policy, read_policy, shipped
from .refine import RefineCache, Refiner
from .tokens import ModelCounter, TokenCounter
from .tools import NoTools, ToolReply, Tools
from .trajectory import Summary, summarise
from .view import Budget, ContextFull, View, view

__all__ = [
    "DIALECTS",
    "NOT_THE_AGENT",
    "Agent",
    "AnswerRule",
    "Budget",
    "ContextFull",
    "ContextTooLong",
    "DamagedLog",
    "Ended",
    "Endpoint",
    "Event",
    "EventLog",
    "FileLog",
    "Folder",
    "Limits",
    "Model",
    "ModelCounter",
    "ModelError",
    "ModelRefused",
    "ModelUnavailable",
    "NoTools",
    "Patience",
    "Policy",
    "PolicyError",
    "RefineCache",
    "Refiner",
    "Reply",
    "Sampled",
    "Sampling",
    "Summary",
    "Task",
    "Termination",
    "TokenCounter",
    "ToolReply",
    "ToolRequest",
    "Tools",
    "Usage",
    "View",
    "find_policy",
    "read_events",
    "read_policy",
    "run",
    "shipped",
    "summarise",
    "view",
]
