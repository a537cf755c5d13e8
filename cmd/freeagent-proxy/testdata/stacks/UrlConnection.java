import java.io.IOException;
import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** By HttpURLConnection, which sends a POST again by itself when a connection breaks off. */
class UrlConnection {
    record Answer(String body, String location, String link) {
        List<String> all(String field) {
            List<String> values = new ArrayList<>();
            for (Matcher m = Pattern.compile("\"" + field + "\":\"([^\"]*)\"").matcher(body); m.find();) {
                values.add(m.group(1));
            }
            return values;
        }

        String next() {
            Matcher m = Pattern.compile("<([^>]*)>; rel='next'").matcher(link == null ? "" : link);
            return m.find() ? m.group(1) : null;
        }
    }

    static Answer call(String method, String url, String body) throws IOException {
        HttpURLConnection connection = (HttpURLConnection) new URL(url).openConnection();
        connection.setRequestMethod(method);
        connection.setRequestProperty("Authorization", "Bearer " + System.getenv("FREEAGENT_KEY"));
        if (body != null) {
            connection.setRequestProperty("Content-Type", "application/json");
            connection.setDoOutput(true);
            connection.getOutputStream().write(body.getBytes(StandardCharsets.UTF_8));
        }
        try (InputStream in = connection.getInputStream()) { // throws unless it is a success
            return new Answer(new String(in.readAllBytes(), StandardCharsets.UTF_8),
                    connection.getHeaderField("Location"), connection.getHeaderField("Link"));
        }
    }

    static void expect(Object got, Object want) {
        if (!got.equals(want)) {
            throw new IllegalStateException("got " + got + ", want " + want);
        }
    }

    public static void main(String[] args) throws IOException {
        String api = System.getenv("FREEAGENT_URL") + "/v2";
        Answer answer = call("POST", api + "/contacts", "{\"contact\":{\"organisation_name\":\"Acme\"}}");
        String created = answer.all("url").get(0);
        expect(answer.location(), created);

        List<String> contacts = new ArrayList<>();
        for (String page = api + "/contacts?per_page=10"; page != null; page = answer.next()) {
            answer = call("GET", page, null);
            contacts.addAll(answer.all("url"));
        }
        expect(contacts.size(), 26);
        expect(call("GET", created, null).all("url").get(0), created);

        String project = call("POST", api + "/projects",
                "{\"project\":{\"name\":\"Roof\",\"contact\":\"" + created + "\"}}").location();
        String first = contacts.get(0);
        call("PUT", project, "{\"project\":{\"contact\":\"" + first + "\"}}");
        expect(call("GET", project, null).all("contact").get(0), first);
        call("DELETE", project, null);
        call("DELETE", created, null);
    }
}
