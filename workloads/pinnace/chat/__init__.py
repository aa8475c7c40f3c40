"""Chat messages to token ids and labels by the model's own template, and model output back to messages."""

from .messages import Conversation, Message, MessageError, ToolCall, parse_conversation
from .parse import ParsedTurn, parse_turn
from .render import IGNORED, Renderer, RenderError, Sample, Turn, join_turns
from .template import ChatTemplate, TemplateError
from .tokenizer import TOKENIZER_FILES, ChatTokenizer, TokenizerError

__all__ = [
    "IGNORED",
    "TOKENIZER_FILES",
    "ChatTemplate",
    "ChatTokenizer",
    "Conversation",
    "Message",
    "MessageError",
    "ParsedTurn",
    "RenderError",
    "Renderer",
    "Sample",
    "TemplateError",
    "TokenizerError",
    "ToolCall",
    "Turn",
    "join_turns",
    "parse_conversation",
    "parse_turn",
]
