-- Health of an SFTJob, MergeJob, RLRun or EvalSuite for Argo CD. The conditions are the truth; a status of an older generation says nothing yet.
local health = { status = "Progressing", message = "Waiting for the operator" }
if obj.status == nil or obj.status.conditions == nil then
  return health
end
if obj.status.observedGeneration ~= obj.metadata.generation then
  health.message = "Waiting for the operator to see generation " .. tostring(obj.metadata.generation)
  return health
end

local conditions = {}
for _, condition in ipairs(obj.status.conditions) do
  conditions[condition.type] = condition
end
local function holds(type)
  return conditions[type] ~= nil and conditions[type].status == "True"
end

local order = {
  { "Failed", "Degraded" },
  { "Complete", "Healthy" },
  { "Stalled", "Degraded" },
  { "Suspended", "Suspended" },
}
for _, pair in ipairs(order) do
  if holds(pair[1]) then
    health.status = pair[2]
    health.message = conditions[pair[1]].reason .. ": " .. (conditions[pair[1]].message or "")
    return health
  end
end
local now = conditions["Progressing"]
if now ~= nil then
  health.message = now.reason .. ": " .. (now.message or "")
end
return health
