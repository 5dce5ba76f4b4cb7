-- ModelDeployment: Healthy when the wanted version answers, Degraded when it cannot, Suspended at no replicas.
local function condition(kind)
  for _, found in ipairs(obj.status.conditions) do
    if found.type == kind then
      return found
    end
  end
  return {}
end

local function health(status, message)
  return { status = status, message = message or "" }
end

if obj.metadata.deletionTimestamp ~= nil then
  return health("Progressing", "is being deleted")
end
if obj.status == nil or obj.status.conditions == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return health("Progressing", "waits for the operator to see this spec")
end
if condition("Stalled").status == "True" then
  return health("Degraded", condition("Stalled").message)
end
if condition("Ready").status == "True" then
  return health("Healthy", condition("Ready").message)
end
if condition("Reconciling").status == "False" then
  return health("Suspended", condition("Ready").message)
end
return health("Progressing", condition("Ready").message)
