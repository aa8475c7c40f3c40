-- Health of a ToolSandbox for Argo CD. The conditions are the truth; a status of an older generation says nothing yet.
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
local function say(status, condition)
  return { status = status, message = condition.reason .. ": " .. (condition.message or "") }
end

local ready = conditions["Ready"]
if ready == nil then
  return health
end
if holds("Suspended") then
  return say("Suspended", conditions["Suspended"])
end
-- What a person must act on is shown even while the rest serves.
if holds("Stalled") then
  return say("Degraded", conditions["Stalled"])
end
if ready.status == "True" and ready.reason == "Available" then
  return say("Healthy", ready)
end
return say("Progressing", ready)
