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

# The body, as far as it may be long.
def read(request)
  body = "".b
  request.body do |chunk|
    body << chunk
    raise WEBrick::HTTPStatus::RequestEntityTooLarge if body.bytesize > MAX_BODY_BYTES
  end
  body
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

server = WEBrick::HTTPServer.new(
  BindAddress: "127.0.0.1", Port: ENV.fetch("PORT", "8000").to_i, AccessLog: []
)
server.mount_proc "/callbacks" do |request, response|
  raise WEBrick::HTTPStatus::MethodNotAllowed unless request.request_method == "POST"

  body = read(request)
  if (found = problem(request, body))
    response.status = 401
    response.body = found
    next
  end
  callback = begin
    JSON.parse(body.force_encoding("UTF-8"))
  rescue JSON::ParserError
    raise WEBrick::HTTPStatus::BadRequest, "the body is not JSON"
  end
  id = request["webhook-id"]
  jobs << [id, callback] if seen.first?(id) # store the callback here, before the answer: it does not come again
  response.status = 204 # also to one that came before
end
%w[INT TERM].each { |signal| trap(signal) { server.shutdown } }
server.start
