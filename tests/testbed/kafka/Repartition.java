import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Repartitioned;

/** A streams application of two parts: a topic, and a repartition topic of two partitions behind it. */
public class Repartition {
    public static void main(String[] args) throws InterruptedException {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", args[0]);
        properties.put("application.id", args[1]);
        properties.put("client.id", "one");
        properties.put("state.dir", args[3]);
        properties.put("group.protocol", "streams");
        properties.put("commit.interval.ms", "200");
        properties.put("default.key.serde", Serdes.ByteArraySerde.class);
        properties.put("default.value.serde", Serdes.ByteArraySerde.class);
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(args[2])
            .repartition(Repartitioned.<Object, Object>as("halves").withNumberOfPartitions(2))
            .foreach((key, value) -> { });
        KafkaStreams streams = new KafkaStreams(builder.build(), properties);
        streams.start();
        new CountDownLatch(1).await();
    }
}
