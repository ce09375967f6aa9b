terraform {
  required_version = ">= 1.5"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 6.10"
    }
    kubernetes = {
      source  = "hashicorp/kubernetes"
      version = "~> 2.30"
    }
  }
}

# What lagwise writes to an HPA is no change to undo. Without this, each plan would remove it.
provider "kubernetes" {
  ignore_annotations = ["^lagwise\\.dev/(ceiling|epoch|user-max-replicas|zeroed-since)$"]
}

variable "replicas" {
  description = "Most replicas of the consumer, and partitions of its topic"
  type        = number
  default     = 12

  validation {
    condition     = var.replicas >= 1 && floor(var.replicas) == var.replicas
    error_message = "replicas must be a whole number from 1."
  }
}

variable "project" {
  description = "ID of the project"
  type        = string
}

variable "location" {
  description = "Region of the Kafka cluster"
  type        = string
}

variable "subnet" {
  description = "Subnet of the clients: projects/PROJECT/regions/REGION/subnetworks/NAME"
  type        = string
}

resource "google_managed_kafka_cluster" "orders" {
  project    = var.project
  location   = var.location
  cluster_id = "orders"

  capacity_config {
    vcpu_count   = 3
    memory_bytes = 3221225472
  }

  gcp_config {
    access_config {
      network_configs {
        subnet = var.subnet
      }
    }
  }
}

resource "google_managed_kafka_topic" "orders" {
  project            = var.project
  location           = var.location
  cluster            = google_managed_kafka_cluster.orders.cluster_id
  topic_id           = "orders"
  partition_count    = var.replicas
  replication_factor = 3
}

# The account of lagwise, for Workload Identity Federation for GKE.
resource "google_service_account" "lagwise" {
  project    = var.project
  account_id = "lagwise"
}

resource "google_project_iam_member" "lagwise" {
  project = var.project
  role    = "roles/managedkafka.client"
  member  = google_service_account.lagwise.member
}

resource "google_service_account_iam_member" "lagwise" {
  service_account_id = google_service_account.lagwise.name
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${var.project}.svc.id.goog[lagwise/lagwise]"
}

output "pod_identity_gcp_service_account" {
  description = "podIdentity.gcpServiceAccount of the chart"
  value       = google_service_account.lagwise.email
}

# The HPA may use as many replicas as the topic has partitions. While the group can use fewer, max_replicas is the ceiling
# of lagwise, and a plan shows the difference: to apply it changes nothing, because lagwise caps the HPA again.
resource "kubernetes_horizontal_pod_autoscaler_v2" "billing" {
  metadata {
    name        = "billing"
    namespace   = "shop"
    annotations = { "lagwise.dev/cap" = "enforce" }
  }

  spec {
    min_replicas = 1
    max_replicas = var.replicas

    scale_target_ref {
      api_version = "apps/v1"
      kind        = "Deployment"
      name        = "billing"
    }

    metric {
      type = "External"
      external {
        metric {
          name = "kafka_lag"
          selector {
            match_labels = {
              group = "billing"
              topic = "orders"
            }
          }
        }
        target {
          type          = "AverageValue"
          average_value = "100"
        }
      }
    }
  }
}
