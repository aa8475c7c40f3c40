"""An agent on the OpenAI Agents SDK, unmodified: `python agents_sdk.py plain|stream`, in an environment of its own.

Knows OPENAI_BASE_URL and OPENAI_API_KEY only. Prints what it called and answered as JSON.
"""

import asyncio
import json
import sys

from agents import Agent, MaxTurnsExceeded, Runner, function_tool

calls: list[str] = []


@function_tool
def add(a: int, b: int) -> str:
    """Adds two numbers."""
    calls.append("add")
    return str(a + b)


async def main(how: str) -> None:
    agent = Agent(name="adder", instructions="Add the numbers.", tools=[add], model="tiny")
    try:
        if how == "stream":
            running = Runner.run_streamed(agent, "41+12", max_turns=4)
            async for _ in running.stream_events():
                pass
            answer = running.final_output
        else:
            answer = (await Runner.run(agent, "41+12", max_turns=4)).final_output
    except MaxTurnsExceeded:
        answer = None
    print(json.dumps({"calls": calls, "answer": answer}))


asyncio.run(main(sys.argv[1]))
