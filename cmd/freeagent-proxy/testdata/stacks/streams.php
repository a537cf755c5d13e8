<?php
// By PHP's own streams, with a connection for each request.
function call(string $method, string $url, ?array $body = null): array
{
    $answer = file_get_contents($url, false, stream_context_create(['http' => [
        'method' => $method,
        'header' => ['Authorization: Bearer ' . getenv('FREEAGENT_KEY'), 'Content-Type: application/json'],
        'content' => $body ? json_encode($body) : '',
    ]]));
    if ($answer === false) {
        throw new Exception("$method $url");
    }
    foreach ($http_response_header as $line) {
        [$name, $value] = explode(':', $line, 2) + [1 => ''];
        $headers[strtolower($name)] = trim($value);
    }
    return [json_decode($answer, true), $headers];
}

require __DIR__ . '/steps.php';
