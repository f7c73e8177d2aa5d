// A receiver of callbacks in Java 17 or newer, with the JDK only.
//
// WEBHOOK_SECRET=whsec_... PORT=8000 java Receiver.java

import static java.nio.charset.StandardCharsets.UTF_8;

import com.sun.net.httpserver.Headers;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.BindException;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.util.Base64;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

public class Receiver {
    static final int TOLERANCE_SECONDS = 300;
    static final int READ_SECONDS = 10;
    static final int MAX_BODY_BYTES = 1024 * 1024;
    static final int MAX_SEEN = 100_000;

    /** The webhook-ids of late. Yours: a table with a unique key. */
    static final Set<String> seen = Collections.synchronizedSet(Collections.newSetFromMap(new LinkedHashMap<String, Boolean>() {
        @Override
        protected boolean removeEldestEntry(Map.Entry<String, Boolean> eldest) {
            return size() > MAX_SEEN;
        }
    }));

    static final ExecutorService worker = Executors.newSingleThreadExecutor();

    /** Why a callback does not verify; null if it does. The body is the bytes as they came. */
    static String problem(Headers headers, byte[] body, byte[] key) throws GeneralSecurityException {
        String id = headers.getFirst("webhook-id");
        String timestamp = headers.getFirst("webhook-timestamp");
        String given = headers.getFirst("webhook-signature");
        if (id == null || timestamp == null || given == null) {
            return "a header is missing";
        }
        if (!timestamp.matches("[0-9]{1,15}")
                || Math.abs(System.currentTimeMillis() / 1000 - Long.parseLong(timestamp)) > TOLERANCE_SECONDS) {
            return "webhook-timestamp is too old, or the clock is off";
        }
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(key, "HmacSHA256"));
        mac.update((id + "." + timestamp + ".").getBytes(UTF_8));
        byte[] expected = ("v1," + Base64.getEncoder().encodeToString(mac.doFinal(body))).getBytes(UTF_8);
        for (String one : given.split(" ")) {
            if (MessageDigest.isEqual(expected, one.getBytes(UTF_8))) { // in constant time
                return null;
            }
        }
        return "no signature matches";
    }

    /** Your work; it runs after the answer. The JDK reads no JSON: your library for that comes in here. */
    static void work(String id, String json) {
        System.out.println("callback " + id + " " + json);
    }

    static void receive(HttpExchange exchange, byte[] key) throws IOException, GeneralSecurityException {
        byte[] body = exchange.getRequestBody().readNBytes(MAX_BODY_BYTES + 1);
        if (body.length > MAX_BODY_BYTES) {
            answer(exchange, 413, "the body is too long");
            return;
        }
        String found = problem(exchange.getRequestHeaders(), body, key);
        if (found != null) {
            answer(exchange, 401, found);
            return;
        }
        String json = jsonOf(body);
        if (json == null) {
            answer(exchange, 400, "the body is not JSON");
            return;
        }
        String id = exchange.getRequestHeaders().getFirst("webhook-id");
        if (seen.add(id)) { // store the callback here, before the answer: it does not come again
            worker.execute(() -> work(id, json));
        }
        exchange.sendResponseHeaders(204, -1); // also to one that came before
    }

    /** The JSON in a body; null where there is none. */
    static String jsonOf(byte[] body) {
        try {
            String text = UTF_8.newDecoder().decode(ByteBuffer.wrap(body)).toString();
            return new Json(text).isValid() ? text : null;
        } catch (CharacterCodingException malformed) {
            return null;
        }
    }

    static void answer(HttpExchange exchange, int status, String text) throws IOException {
        byte[] bytes = text.getBytes(UTF_8);
        exchange.sendResponseHeaders(status, bytes.length);
        exchange.getResponseBody().write(bytes);
    }

    static void fail(String why) {
        System.err.println(why);
        System.exit(1);
    }

    /** The key in a secret: what follows whsec_, decoded from base64. */
    static byte[] keyOf(String secret) {
        byte[] key = {};
        try {
            key = Base64.getDecoder().decode(secret.replaceFirst("^whsec_", ""));
        } catch (IllegalArgumentException malformed) {
            // as if there were none
        }
        if (!secret.startsWith("whsec_") || key.length < 24) {
            fail("WEBHOOK_SECRET must be the secret you were given: whsec_...");
        }
        return key;
    }

    public static void main(String[] arguments) throws IOException {
        byte[] key = keyOf(System.getenv().getOrDefault("WEBHOOK_SECRET", "").strip());
        int port = Integer.parseInt(System.getenv().getOrDefault("PORT", "8000"));
        System.setProperty("sun.net.httpserver.maxReqTime", String.valueOf(READ_SECONDS)); // else it waits for ever
        HttpServer server = null;
        try {
            server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 0);
        } catch (BindException error) {
            fail("port " + port + ": " + error.getMessage());
        }
        server.setExecutor(Executors.newCachedThreadPool()); // a request that comes slowly holds up no other
        server.createContext("/callbacks", exchange -> {
            try (exchange) {
                if (!exchange.getRequestURI().getPath().equals("/callbacks")) { // it gets /callbacks/more as well
                    answer(exchange, 404, "POST callbacks to /callbacks");
                } else if (exchange.getRequestMethod().equals("POST")) {
                    receive(exchange, key);
                } else {
                    answer(exchange, 405, "POST callbacks here");
                }
            } catch (GeneralSecurityException error) {
                throw new IOException(error);
            }
        });
        server.start();
        System.out.println("listening on http://127.0.0.1:" + port + "/callbacks");
    }

    /** Says whether a text is JSON, which the JDK cannot. Yours: your library, which reads it as well. */
    static final class Json {
        static final int MAX_DEPTH = 100;

        private final String text;
        private int at;

        Json(String text) {
            this.text = text;
        }

        boolean isValid() {
            return value(0) && at == text.length();
        }

        private boolean value(int depth) {
            blanks();
            boolean read = depth < MAX_DEPTH && switch (at < text.length() ? text.charAt(at) : ' ') {
                case '{' -> members('}', depth);
                case '[' -> members(']', depth);
                case '"' -> string();
                default -> word();
            };
            blanks();
            return read;
        }

        private boolean members(char end, int depth) {
            at++;
            blanks();
            if (next(end)) {
                return true;
            }
            do {
                if (end == '}' && !name() || !value(depth + 1)) {
                    return false;
                }
            } while (next(','));
            return next(end);
        }

        private boolean name() {
            blanks();
            boolean read = string();
            blanks();
            return read && next(':');
        }

        private boolean string() {
            if (!next('"')) {
                return false;
            }
            for (; at < text.length(); at++) {
                if (next('"')) {
                    return true;
                }
                if (text.charAt(at) < ' ') {
                    return false;
                }
                if (text.charAt(at) == '\\') {
                    at++;
                }
            }
            return false;
        }

        private boolean word() {
            int start = at;
            while (at < text.length() && "{}[],:\" \t\r\n".indexOf(text.charAt(at)) < 0) {
                at++;
            }
            return text.substring(start, at).matches("true|false|null|-?(0|[1-9][0-9]*)([.][0-9]+)?([eE][-+]?[0-9]+)?");
        }

        private boolean next(char wanted) {
            boolean found = at < text.length() && text.charAt(at) == wanted;
            at += found ? 1 : 0;
            return found;
        }

        private void blanks() {
            while (at < text.length() && " \t\r\n".indexOf(text.charAt(at)) >= 0) {
                at++;
            }
        }
    }
}
