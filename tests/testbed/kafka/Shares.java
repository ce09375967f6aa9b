import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.consumer.AcknowledgeType;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * A member of a share group: BOOTSTRAP GROUP TOPIC COUNT OFFSET... It reads from the start of the log, accepts COUNT
 * records, releases those at the given offsets (of every partition), and leaves.
 */
public class Shares {
    public static void main(String[] arguments) throws Exception {
        Map<String, Object> bootstrap = Map.of("bootstrap.servers", arguments[0]);
        try (Admin admin = Admin.create(bootstrap)) {
            var group = new ConfigResource(ConfigResource.Type.GROUP, arguments[1]);
            var reset = new ConfigEntry("share.auto.offset.reset", "earliest");
            var change = List.of(new AlterConfigOp(reset, AlterConfigOp.OpType.SET));
            admin.incrementalAlterConfigs(Map.of(group, change)).all().get();
        }
        int left = Integer.parseInt(arguments[3]);
        Set<Long> released = Arrays.stream(arguments).skip(4).map(Long::parseLong).collect(Collectors.toSet());
        Map<String, Object> config = Map.of(
            "bootstrap.servers", arguments[0],
            "group.id", arguments[1],
            "share.acknowledgement.mode", "explicit");
        ByteArrayDeserializer bytes = new ByteArrayDeserializer();
        try (var consumer = new KafkaShareConsumer<>(config, bytes, bytes)) {
            consumer.subscribe(List.of(arguments[2]));
            while (left > 0) {
                for (var record : consumer.poll(Duration.ofMillis(200))) {
                    boolean isReleased = released.contains(record.offset());
                    consumer.acknowledge(record, isReleased ? AcknowledgeType.RELEASE : AcknowledgeType.ACCEPT);
                    left -= isReleased ? 0 : 1;
                }
                consumer.commitSync();
            }
        }
    }
}
