<?php
// A receiver of callbacks in PHP 8.1 or newer, with nothing installed.
//
// WEBHOOK_SECRET=whsec_... CALLBACK_FOLDER=callbacks php -S 127.0.0.1:8000 receiver.php
//
// That server is for trying it out; behind PHP-FPM it is the same file. There, CALLBACK_FOLDER must be
// a folder that no web server serves.

declare(strict_types=1);

const TOLERANCE_SECONDS = 300;
const MAX_BODY_BYTES = 1024 * 1024;

/** Why a callback does not verify; null if it does. The body is the bytes as they came. */
function problem(string $body, string $key): ?string
{
    $id = $_SERVER['HTTP_WEBHOOK_ID'] ?? '';
    $timestamp = $_SERVER['HTTP_WEBHOOK_TIMESTAMP'] ?? '';
    $given = $_SERVER['HTTP_WEBHOOK_SIGNATURE'] ?? '';
    if ($id === '' || $timestamp === '' || $given === '') {
        return 'a header is missing';
    }
    if (!preg_match('/^[0-9]{1,15}$/D', $timestamp) || abs(time() - (int) $timestamp) > TOLERANCE_SECONDS) {
        return 'webhook-timestamp is too old, or the clock is off';
    }
    $expected = 'v1,' . base64_encode(hash_hmac('sha256', "$id.$timestamp.$body", $key, true));
    foreach (explode(' ', $given) as $one) {
        if (hash_equals($expected, $one)) {  // in constant time
            return null;
        }
    }
    return 'no signature matches';
}

/** Stores a callback, and says whether it had not come before; null if it cannot. Yours: a table with a unique key. */
function store(string $folder, string $id, string $body): ?bool
{
    is_dir($folder) || @mkdir($folder, 0700, true);
    $path = $folder . '/' . hash('sha256', $id);
    $written = $path . '.' . bin2hex(random_bytes(8));
    $first = @file_put_contents($written, $body) === strlen($body)
        && @link($written, $path);  // fails where the file is there, which is always a whole one
    @unlink($written);
    return $first || file_exists($path) ? $first : null;
}

/** Your work; it runs after the answer. */
function work(string $id, mixed $callback): void
{
    file_put_contents('php://stderr', "callback $id " . json_encode($callback) . "\n");
}

/** Answers, and closes the connection where the server lets us, so that work can follow. */
function answer(int $status, string $text = ''): void
{
    http_response_code($status);
    if ($text !== '') {
        header('Content-Type: text/plain');
        header('Content-Length: ' . strlen($text));
        echo $text;
    }
    if (function_exists('fastcgi_finish_request')) {
        fastcgi_finish_request();  // PHP-FPM
    } else {
        flush();
    }
}

/** Answers, and logs, that the server cannot take any callback now: each comes again. */
function refuse_all(string $why): void
{
    error_log($why);
    answer(500);
}

function receive(): void
{
    $secret = trim((string) getenv('WEBHOOK_SECRET'));
    $folder = (string) getenv('CALLBACK_FOLDER');
    $key = base64_decode(substr($secret, strlen('whsec_')), true);
    if (!str_starts_with($secret, 'whsec_') || $key === false || strlen($key) < 24) {
        refuse_all('WEBHOOK_SECRET must be the secret you were given: whsec_...');
        return;
    }
    if ($folder === '') {
        refuse_all('CALLBACK_FOLDER must be a folder for callbacks, which no web server serves');
        return;
    }
    if ($_SERVER['REQUEST_METHOD'] !== 'POST' || explode('?', $_SERVER['REQUEST_URI'])[0] !== '/callbacks') {
        answer(404, 'POST callbacks to /callbacks');
        return;
    }
    $body = (string) file_get_contents('php://input', false, null, 0, MAX_BODY_BYTES + 1);
    if (strlen($body) > MAX_BODY_BYTES) {
        answer(413, 'the body is too long');
        return;
    }
    $found = problem($body, $key);
    if ($found !== null) {
        answer(401, $found);
        return;
    }
    $callback = json_decode($body, true);
    if ($callback === null && json_last_error() !== JSON_ERROR_NONE) {
        answer(400, 'the body is not JSON');
        return;
    }
    $id = $_SERVER['HTTP_WEBHOOK_ID'];
    $first = store($folder, $id, $body);  // before the answer: it does not come again
    if ($first === null) {
        refuse_all("callback $id cannot be stored in $folder: is there room, and may it be written to?");
        return;
    }
    ignore_user_abort(true);  // work follows even if the sender is gone
    answer(204);  // also to one that came before
    if ($first) {
        work($id, $callback);
    }
}

receive();
