terraform {
  required_version = ">= 1.5"
  required_providers {
    kafka = {
      source  = "Mongey/kafka"
      version = "~> 0.9"
    }
    kubernetes = {
      source  = "hashicorp/kubernetes"
      version = "~> 2.30"
    }
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.60"
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

variable "cluster_name" {
  description = "Name of the MSK cluster, which has IAM"
  type        = string
}

variable "eks_cluster_name" {
  description = "Name of the EKS cluster, which has the agent of EKS Pod Identity"
  type        = string
}

variable "region" {
  description = "Region of the MSK cluster"
  type        = string
}

data "aws_msk_cluster" "main" {
  cluster_name = var.cluster_name
}

provider "kafka" {
  bootstrap_servers = split(",", data.aws_msk_cluster.main.bootstrap_brokers_sasl_iam)
  tls_enabled       = true
  sasl_mechanism    = "aws-iam"
  sasl_aws_region   = var.region
}

resource "kafka_topic" "orders" {
  name               = "orders"
  partitions         = var.replicas
  replication_factor = 3
}

# The role of lagwise, by EKS Pod Identity.
resource "aws_iam_role" "lagwise" {
  name = "lagwise"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "pods.eks.amazonaws.com" }
      Action    = ["sts:AssumeRole", "sts:TagSession"]
    }]
  })
}

resource "aws_iam_role_policy" "lagwise" {
  name = "kafka"
  role = aws_iam_role.lagwise.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect   = "Allow"
        Action   = "kafka-cluster:Connect"
        Resource = data.aws_msk_cluster.main.arn
      },
      {
        Effect   = "Allow"
        Action   = "kafka-cluster:DescribeTopic"
        Resource = "${replace(data.aws_msk_cluster.main.arn, ":cluster/", ":topic/")}/*"
      },
      {
        Effect   = "Allow"
        Action   = "kafka-cluster:DescribeGroup"
        Resource = "${replace(data.aws_msk_cluster.main.arn, ":cluster/", ":group/")}/*"
      },
    ]
  })
}

resource "aws_eks_pod_identity_association" "lagwise" {
  cluster_name    = var.eks_cluster_name
  namespace       = "lagwise"
  service_account = "lagwise"
  role_arn        = aws_iam_role.lagwise.arn
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
