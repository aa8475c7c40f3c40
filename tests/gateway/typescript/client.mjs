// The official TypeScript clients, unmodified: `node client.mjs v1|v2 URL TOKEN`. Prints what it got as JSON.
const [, , generation, url, token] = process.argv;

const { Client, StreamableHTTPClientTransport } =
  generation === "v1"
    ? {
        ...(await import("@modelcontextprotocol/sdk/client/index.js")),
        ...(await import("@modelcontextprotocol/sdk/client/streamableHttp.js")),
      }
    : await import("@modelcontextprotocol/client");

const options = generation === "v1" ? {} : { versionNegotiation: { mode: "auto" } };
const client = new Client({ name: "pinnace-test", version: "1" }, options);
const transport = new StreamableHTTPClientTransport(new URL(url), {
  requestInit: { headers: { Authorization: `Bearer ${token}` } },
});
await client.connect(transport);
const progress = [];
const call = (params, more) =>
  generation === "v1" ? client.callTool(params, undefined, more) : client.callTool(params, more);
const tools = (await client.listTools()).tools.map((tool) => tool.name);
const sum = await call({ name: "add", arguments: { a: 1, b: 2 } });
const wrong = await call({ name: "add", arguments: { a: "one", b: 2 } });
await call({ name: "progress", arguments: { steps: 3 } }, { onprogress: (each) => progress.push(each.progress) });
const many = await Promise.all(
  Array.from({ length: 50 }, (_, n) => call({ name: "echo", arguments: { text: String(n) } })),
);
console.log(
  JSON.stringify({
    tools,
    sum: sum.structuredContent,
    wrong: { isError: wrong.isError, outcome: wrong._meta?.["pinnace.dev/outcome"] },
    progress,
    many: many.map((each) => each.content[0].text),
    protocol: client.getNegotiatedProtocolVersion?.() ?? transport.protocolVersion,
  }),
);
await client.close();
process.exit(0);
