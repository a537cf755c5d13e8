<?php
// By the curl extension, with one handle, and so one connection, for all.
$curl = curl_init();

function call(string $method, string $url, ?array $body = null): array
{
    global $curl;
    $headers = [];
    curl_reset($curl);
    curl_setopt_array($curl, [
        CURLOPT_URL => $url,
        CURLOPT_CUSTOMREQUEST => $method,
        CURLOPT_USERPWD => 'tests:' . getenv('FREEAGENT_KEY'),
        CURLOPT_RETURNTRANSFER => true,
        CURLOPT_FAILONERROR => true,
        CURLOPT_HEADERFUNCTION => function ($curl, string $line) use (&$headers): int {
            [$name, $value] = explode(':', $line, 2) + [1 => ''];
            $headers[strtolower($name)] = trim($value);
            return strlen($line);
        },
    ]);
    if ($body) { // its URLs have their slashes escaped
        curl_setopt($curl, CURLOPT_HTTPHEADER, ['Content-Type: application/json']);
        curl_setopt($curl, CURLOPT_POSTFIELDS, json_encode($body));
    }
    $answer = curl_exec($curl);
    if ($answer === false) {
        throw new Exception("$method $url: " . curl_error($curl));
    }
    return [json_decode($answer, true), $headers];
}

require __DIR__ . '/steps.php';
