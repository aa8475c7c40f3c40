// An agent on OpenAI's unmodified Node client: `node agent.mjs plain|stream|responses`. Knows OPENAI_BASE_URL and
// OPENAI_API_KEY only. Prints what it called and answered as JSON.
import OpenAI from "openai";

const client = new OpenAI();
const how = process.argv[2];
const parameters = {
  type: "object",
  properties: { a: { type: "integer" }, b: { type: "integer" } },
  required: ["a", "b"],
};
const described = { name: "add", description: "Adds two numbers.", parameters };
const add = (json) => String(JSON.parse(json).a + JSON.parse(json).b);
const calls = [];

async function chat(messages) {
  const request = { model: "tiny", messages, tools: [{ type: "function", function: described }] };
  if (how === "stream") return client.chat.completions.stream(request).finalMessage();
  return (await client.chat.completions.create(request)).choices[0].message;
}

async function chatLoop(messages) {
  for (let turn = 0; turn < 4; turn++) {
    const message = await chat(messages);
    messages.push(message);
    if (!message.tool_calls?.length) return message.content;
    for (const { id, function: called } of message.tool_calls) {
      calls.push(called.name);
      messages.push({ role: "tool", tool_call_id: id, content: add(called.arguments) });
    }
  }
}

async function responsesLoop(input) {
  for (let turn = 0; turn < 4; turn++) {
    const tools = [{ type: "function", strict: false, ...described }];
    const response = await client.responses.create({ model: "tiny", input, tools });
    input.push(...response.output);
    const wanted = response.output.filter((item) => item.type === "function_call");
    if (!wanted.length) return response.output_text;
    for (const item of wanted) {
      calls.push(item.name);
      input.push({ type: "function_call_output", call_id: item.call_id, output: add(item.arguments) });
    }
  }
}

const asked = [{ role: "user", content: "41+12" }];
const answer = await (how === "responses" ? responsesLoop(asked) : chatLoop(asked));
console.log(JSON.stringify({ calls, answer: answer ?? null }));
