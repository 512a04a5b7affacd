-- wrk's script: JSON calls of one kind, 256-byte values, over 10,000 keys.
-- Usage: wrk -s load.lua URL -- put|get|serializable|txn|range|mixed SEED
local KEYS = 10000
local STRIDE = 7919 -- Shares no factor with KEYS: every key has its turn, neighbours lie apart.
local RANGE_KEYS = 1000
local PUT_EVERY = 5 -- Of a mixed load.
local VALUE = string.rep("dmFsdWUt", 42) .. "dmFsdg==" -- 256 bytes in base64
local HEAD = { ["Content-Type"] = "application/json" }
local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local requests = {}
local position

-- Keys have nine bytes, so that their base64 needs no padding.
local function key(number)
  local text = string.format("key-%05d", number)
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

local function post(path, body)
  return wrk.format("POST", path, HEAD, body)
end

local calls = {}

function calls.put(number)
  return post("/v3/kv/put", '{"key":"' .. key(number) .. '","value":"' .. VALUE .. '"}')
end

function calls.get(number)
  return post("/v3/kv/range", '{"key":"' .. key(number) .. '"}')
end

function calls.serializable(number)
  return post("/v3/kv/range", '{"key":"' .. key(number) .. '","serializable":true}')
end

-- It compares what is always so, or the number of writes could not be told from that of answers.
function calls.txn(number)
  local found = key(number)
  return post("/v3/kv/txn",
    '{"compare":[{"key":"' .. found .. '","target":"VERSION","result":"GREATER","version":"0"}],'
    .. '"success":[{"requestPut":{"key":"' .. found .. '","value":"' .. VALUE .. '"}}]}')
end

function calls.range(number)
  local first = math.floor(number / RANGE_KEYS) * RANGE_KEYS
  return post("/v3/kv/range",
    '{"key":"' .. key(first) .. '","range_end":"' .. key(first + RANGE_KEYS) .. '"}')
end

-- Any key, or those that are put and those that are read would be others for ever.
function calls.mixed(_, turn)
  local number = math.random(0, KEYS - 1)
  return turn % PUT_EVERY == 0 and calls.put(number) or calls.get(number)
end

function init(arguments)
  local call = calls[arguments[1]]
  math.randomseed(tonumber(arguments[2]))
  local number = math.random(0, KEYS - 1)
  for turn = 0, KEYS - 1 do
    requests[turn] = call(number, turn)
    number = (number + STRIDE) % KEYS
  end
  position = -1
end

function request()
  position = (position + 1) % KEYS
  return requests[position]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"refused":%d,"broken":%d,'
    .. '"bytes":%.0f}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout, summary.bytes))
end
