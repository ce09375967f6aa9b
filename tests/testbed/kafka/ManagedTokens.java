import static java.nio.charset.StandardCharsets.UTF_8;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.net.URI;
import java.net.URLDecoder;
import java.net.URLEncoder;
import java.security.MessageDigest;
import java.time.Instant;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.util.Arrays;
import java.util.Base64;
import java.util.HexFormat;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.stream.Collectors;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;
import org.apache.kafka.common.security.oauthbearer.JwtValidator;
import org.apache.kafka.common.security.oauthbearer.JwtValidatorException;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerToken;
import org.apache.kafka.common.security.oauthbearer.internals.secured.BasicOAuthBearerToken;

/**
 * A broker that checks tokens as Amazon MSK and Google's Managed Kafka do: kafka.Kafka PROPERTIES. The system property
 * managed.secret is the secret of every access key of Amazon's, managed.access the access token of Google's.
 */
public class ManagedTokens {
    public static void main(String[] arguments) {
        // That of this file's classes, which the broker has to find by their names.
        Thread.currentThread().setContextClassLoader(ManagedTokens.class.getClassLoader());
        kafka.Kafka.main(Arrays.copyOfRange(arguments, 1, arguments.length));
    }

    /** What listeners name as sasl.oauthbearer.jwt.validator.class. */
    public static class Validator implements JwtValidator {
        @Override
        public OAuthBearerToken validate(String token) {
            try {
                return token.contains(".") ? google(token) : amazon(token);
            } catch (Exception error) {
                throw new JwtValidatorException("not a token of a managed service: " + error.getMessage(), error);
            }
        }
    }

    /** A presigned URL in base64, signed by version 4 of Amazon's signatures. */
    private static OAuthBearerToken amazon(String token) throws Exception {
        URI url = URI.create(decode(token));
        Map<String, String> query = new TreeMap<>();
        for (String pair : url.getRawQuery().split("&")) {
            String[] parts = pair.split("=", 2);
            query.put(parts[0], URLDecoder.decode(parts[1], UTF_8));
        }
        // Libraries add it to the signed URL.
        query.remove("User-Agent");
        String signature = query.remove("X-Amz-Signature");
        // Access key, day, region, service, and a word that never changes.
        String[] scope = query.get("X-Amz-Credential").split("/");
        require(scope.length == 5 && scope[3].equals("kafka-cluster") && scope[4].equals("aws4_request"), "its scope");
        String host = "kafka." + scope[2] + ".amazonaws.com";
        require(url.getScheme().equals("https") && url.getAuthority().equals(host) && url.getPath().equals("/"), "its address");
        require("kafka-cluster:Connect".equals(query.get("Action")), "its action");
        require("AWS4-HMAC-SHA256".equals(query.get("X-Amz-Algorithm")), "its algorithm");
        String date = query.get("X-Amz-Date");
        Instant signed = DateTimeFormatter.ofPattern("yyyyMMdd'T'HHmmss'Z'").withZone(ZoneOffset.UTC).parse(date, Instant::from);
        long lifetime = Long.parseLong(query.get("X-Amz-Expires"));
        require(date.startsWith(scope[1]) && lifetime > 0 && lifetime <= 900, "its lifetime");
        String canonical = query.entrySet().stream()
            .map(entry -> encode(entry.getKey()) + "=" + encode(entry.getValue()))
            .collect(Collectors.joining("&"));
        String request = "GET\n/\n" + canonical + "\nhost:" + host + "\n\nhost\n" + hash("");
        String text = "AWS4-HMAC-SHA256\n" + date + "\n" + String.join("/", Arrays.copyOfRange(scope, 1, 5)) + "\n" + hash(request);
        byte[] key = ("AWS4" + System.getProperty("managed.secret")).getBytes(UTF_8);
        for (String part : Arrays.copyOfRange(scope, 1, 5)) {
            key = sign(key, part);
        }
        require(HexFormat.of().formatHex(sign(key, text)).equals(signature), "its signature");
        return valid(token, scope[0], signed, signed.plusSeconds(lifetime));
    }

    /** An access token in the shape of a JSON Web Token. */
    private static OAuthBearerToken google(String token) throws Exception {
        String[] parts = token.split("\\.");
        require(parts.length == 3, "its parts");
        ObjectMapper json = new ObjectMapper();
        require(json.readTree(decode(parts[0])).path("alg").asText().equals("GOOG_OAUTH2_TOKEN"), "its header");
        require(decode(parts[2]).equals(System.getProperty("managed.access")), "its access token");
        JsonNode claims = json.readTree(decode(parts[1]));
        require(claims.path("iss").asText().equals("Google") && claims.path("scope").asText().equals("kafka"), "its claims");
        Instant issued = Instant.ofEpochSecond(claims.path("iat").asLong());
        return valid(token, claims.path("sub").asText(), issued, Instant.ofEpochSecond(claims.path("exp").asLong()));
    }

    private static OAuthBearerToken valid(String token, String principal, Instant from, Instant until) {
        Instant now = Instant.now();
        require(!principal.isEmpty(), "its principal");
        require(until.isAfter(now) && from.isBefore(now.plusSeconds(60)), "its time");
        return new BasicOAuthBearerToken(token, Set.of(), until.toEpochMilli(), principal, from.toEpochMilli());
    }

    private static void require(boolean holds, String part) {
        if (!holds) {
            throw new IllegalArgumentException(part + " is another one");
        }
    }

    private static String decode(String text) {
        return new String(Base64.getUrlDecoder().decode(text), UTF_8);
    }

    private static String encode(String text) {
        return URLEncoder.encode(text, UTF_8).replace("+", "%20").replace("*", "%2A").replace("%7E", "~");
    }

    private static String hash(String text) throws Exception {
        return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(text.getBytes(UTF_8)));
    }

    private static byte[] sign(byte[] key, String text) throws Exception {
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(key, "HmacSHA256"));
        return mac.doFinal(text.getBytes(UTF_8));
    }
}
