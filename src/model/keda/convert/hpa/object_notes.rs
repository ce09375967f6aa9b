//! Notes on fields of a ScaledObject that have nothing to do with its metrics.

use super::ObjectReader;

impl ObjectReader<'_> {
    /// Notes on the other fields of the object.
    pub(super) fn note_object(&mut self) {
        let spec = &self.object.spec;
        let notes = &mut self.notes;
        if let Some(seconds) = spec.polling_interval {
            notes.differs(
                "pollingInterval",
                format!("{seconds}s: lagwise reads all groups every poll.interval, 5s by default"),
            );
        }
        if spec.initial_cooldown_period.unwrap_or(0) > 0 {
            notes.lost("initialCooldownPeriod", "lagwise scales to zero after the cooldown, and never before the group has committed");
        }
        if let Some(idle) = spec.idle_replica_count.filter(|idle| *idle > 0) {
            notes.lost(
                "idleReplicaCount",
                format!("{idle}: only 0 works, in KEDA, too; the workload keeps minReplicas"),
            );
        }
        if spec.scale_target_ref.env_source_container_name.is_some() {
            notes.unneeded(
                "scaleTargetRef.envSourceContainerName",
                "lagwise reads no environment of the scaled container",
            );
        }
        if spec.advanced.restore_to_original_replica_count {
            notes.lost(
                "advanced.restoreToOriginalReplicaCount",
                "a deleted HPA leaves the replicas as they are",
            );
        }
        if spec.advanced.scaling_modifiers.is_some() {
            notes.lost("advanced.scalingModifiers", "lagwise computes no formula: each trigger is a metric of its own, and the one that asks for most replicas wins");
        }
        let unknown = spec.unknown.keys().map(String::clone);
        let advanced = spec
            .advanced
            .unknown
            .keys()
            .map(|name| format!("advanced.{name}"));
        let config = &spec.advanced.horizontal_pod_autoscaler_config.unknown;
        let config = config
            .keys()
            .map(|name| format!("advanced.horizontalPodAutoscalerConfig.{name}"));
        for name in unknown.chain(advanced).chain(config) {
            notes.lost(name, "KEDA has no such field");
        }
        if self.object.is_annotated("force-activation") {
            self.notes.differs(
                "autoscaling.keda.sh/force-activation",
                "the workload is not scaled to zero",
            );
        }
        if self.object.is_annotated("paused") {
            self.notes.differs(
                "autoscaling.keda.sh/paused",
                "the HPA scales as soon as it is applied",
            );
        }
    }
}
