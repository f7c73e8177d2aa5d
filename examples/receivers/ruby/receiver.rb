# A receiver of callbacks in Ruby 3.1 or newer, with WEBrick.
#
# gem install webrick
# WEBHOOK_SECRET=whsec_... PORT=8000 ruby receiver.rb

require "json"
require "openssl"
require "webrick"

TOLERANCE_SECONDS = 300
MAX_BODY_BYTES = 1024 * 1024
MAX_SEEN = 100_000

# The key in a secret: what follows whsec_, decoded from base64.
def key_of(secret)
  secret = secret.strip
  key = begin
    secret.delete_prefix("whsec_").unpack1("m0")
  rescue ArgumentError
    ""
  end
  abort "WEBHOOK_SECRET must be the secret you were given: whsec_..." unless secret.start_with?("whsec_") && key.bytesize >= 24
  key
end

KEY = key_of(ENV.fetch("WEBHOOK_SECRET", ""))

# Why a callback does not verify; nil if it does. `body` is the bytes as they came.
def problem(request, body)
  id, timestamp, given = %w[id timestamp signature].map { |name| request["webhook-#{name}"].to_s }
  return "a header is missing" if [id, timestamp, given].any?(&:empty?)
  unless timestamp.match?(/\A[0-9]{1,15}\z/) && (Time.now.to_i - timestamp.to_i).abs <= TOLERANCE_SECONDS
    return "webhook-timestamp is too old, or the clock is off"
  end

  signed = "#{id}.#{timestamp}.".b + body
  expected = "v1," + [OpenSSL::HMAC.digest("SHA256", KEY, signed)].pack("m0")
  matches = given.split.any? { |one| OpenSSL.secure_compare(expected, one) } # in constant time
  "no signature matches" unless matches
end

# The body; nil if it is too long.
def read(request)
  body = "".b
  request.body do |chunk|
    body << chunk
    return nil if body.bytesize > MAX_BODY_BYTES
  end
  body
end

# What JSON says, in a list, which is empty where it is no JSON.
def parsed(body)
  body.force_encoding("UTF-8").valid_encoding? ? [JSON.parse(body)] : []
rescue JSON::ParserError
  []
end

# Knows the webhook-ids of late, oldest first. Yours: a table with a unique key.
class Memory
  def initialize
    @known = {}
    @mutex = Mutex.new
  end

  # Whether an id was not there before; remembers it.
  def first?(id)
    @mutex.synchronize do
      next false if @known.key?(id)

      @known.shift if @known.size >= MAX_SEEN
      @known[id] = true
    end
  end
end

# Your work; it runs after the answer.
def work(id, callback)
  puts "callback #{id} #{JSON.generate(callback)}"
end

# The status and the text of the answer to a request.
def receive(request, seen, jobs)
  return [404, "POST callbacks to /callbacks"] unless request.path == "/callbacks"
  return [405, "POST callbacks here"] unless request.request_method == "POST"

  body = read(request)
  return [413, "the body is too long"] unless body

  found = problem(request, body)
  return [401, found] if found

  callback, = read_json = parsed(body)
  return [400, "the body is not JSON"] if read_json.empty?

  id = request["webhook-id"]
  jobs << [id, callback] if seen.first?(id) # store the callback here, before the answer: it does not come again
  [204, nil] # also to one that came before
end

$stdout.sync = true
seen = Memory.new
jobs = Queue.new
Thread.new do
  loop do
    work(*jobs.pop)
  rescue StandardError => e
    warn "the work failed: #{e.message}"
  end
end

server = begin
  WEBrick::HTTPServer.new(BindAddress: "127.0.0.1", Port: ENV.fetch("PORT", "8000").to_i, AccessLog: [])
rescue SystemCallError => e
  abort e.message # the port is taken, for example
end
server.mount_proc "/" do |request, response|
  response.status, response.body = receive(request, seen, jobs)
  response.content_type = "text/plain"
  response.keep_alive = false if response.status == 413 # the rest of the body is not read
end
%w[INT TERM].each { |signal| trap(signal) { server.shutdown } }
server.start
