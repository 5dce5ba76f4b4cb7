-- FineTuneJob: Progressing until it ends, Healthy when it made a version, Degraded when it failed.
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

-- What keeps it, with the next step where status has one.
local function told(kind)
  local failure = obj.status.failure or {}
  local message = failure.message or condition(kind).message or ""
  return failure.nextStep and message .. "\nNext step: " .. failure.nextStep or message
end

if obj.metadata.deletionTimestamp ~= nil then
  return health("Progressing", "is being deleted")
end
if obj.status == nil or obj.status.conditions == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return health("Progressing", "waits for the operator to see this spec")
end
if condition("Failed").status == "True" then
  return health("Degraded", told("Failed"))
end
if condition("Complete").status == "True" then
  return health("Healthy", condition("Complete").message)
end
if condition("Suspended").status == "True" then
  return health("Suspended", condition("Suspended").message)
end
if condition("Stalled").status == "True" then
  return health("Degraded", told("Stalled"))
end
if condition("Ready").status == "True" then
  return health("Healthy", condition("Ready").message)
end
if obj.status.progress ~= nil and condition("Reconciling").reason == "Running" then
  return health("Progressing", "Running: " .. (obj.status.progress.percent or 0) .. "%")
end
return health("Progressing", told("Ready"))
