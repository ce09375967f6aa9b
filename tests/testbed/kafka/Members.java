import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** Members of a group by Kafka's own client: BOOTSTRAP GROUP COUNT ASSIGNOR TOPIC... until the process is stopped. */
public class Members {
    public static void main(String[] arguments) throws InterruptedException {
        List<String> topics = List.of(arguments).subList(4, arguments.length);
        AtomicBoolean stopping = new AtomicBoolean();
        List<Thread> members = new ArrayList<>();
        for (int i = 0; i < Integer.parseInt(arguments[2]); i++) {
            Map<String, Object> config = Map.of(
                ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0],
                ConsumerConfig.GROUP_ID_CONFIG, arguments[1],
                ConsumerConfig.PARTITION_ASSIGNMENT_STRATEGY_CONFIG, arguments[3],
                ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest",
                ConsumerConfig.AUTO_COMMIT_INTERVAL_MS_CONFIG, 500,
                ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG, 6000,
                ConsumerConfig.HEARTBEAT_INTERVAL_MS_CONFIG, 1000);
            members.add(new Thread(() -> {
                ByteArrayDeserializer bytes = new ByteArrayDeserializer();
                try (var consumer = new KafkaConsumer<>(config, bytes, bytes)) {
                    consumer.subscribe(topics);
                    while (!stopping.get()) {
                        consumer.poll(Duration.ofMillis(200));
                    }
                }
            }));
        }
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            stopping.set(true);
            for (Thread member : members) {
                try {
                    member.join();
                } catch (InterruptedException e) {
                    return;
                }
            }
        }));
        for (Thread member : members) {
            member.start();
        }
        for (Thread member : members) {
            member.join();
        }
    }
}
