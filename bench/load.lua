-- wrk's script: JSON puts or linearizable gets of 256-byte values over 10,000 keys.
-- Usage: wrk -s load.lua URL -- put|get SEED
local KEYS = 10000
local STRIDE = 7919 -- Shares no factor with KEYS: every key has its turn, neighbours lie apart.
local VALUE = string.rep("dmFsdWUt", 42) .. "dmFsdg==" -- 256 bytes in base64
local HEAD = { ["Content-Type"] = "application/json" }
local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local requests = {}
local position

-- Keys have nine bytes, so that their base64 needs no padding.
local function base64(text)
  local found = {}
  for first = 1, #text, 3 do
    local a, b, c = text:byte(first, first + 2)
    local bits = a * 65536 + b * 256 + c
    for shift = 18, 0, -6 do
      local digit = math.floor(bits / 2 ^ shift) % 64
      found[#found + 1] = ALPHABET:sub(digit + 1, digit + 1)
    end
  end
  return table.concat(found)
end

function init(arguments)
  local puts = arguments[1] == "put"
  math.randomseed(tonumber(arguments[2]))
  for number = 0, KEYS - 1 do
    local key = base64(string.format("key-%05d", number))
    if puts then
      local body = '{"key":"' .. key .. '","value":"' .. VALUE .. '"}'
      requests[number] = wrk.format("POST", "/v3/kv/put", HEAD, body)
    else
      requests[number] = wrk.format("POST", "/v3/kv/range", HEAD, '{"key":"' .. key .. '"}')
    end
  end
  position = math.random(0, KEYS - 1)
end

function request()
  position = (position + STRIDE) % KEYS
  return requests[position]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"refused":%d,"broken":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
