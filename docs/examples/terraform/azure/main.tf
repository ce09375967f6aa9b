terraform {
  required_version = ">= 1.5"
  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = "~> 4.0"
    }
    kubernetes = {
      source  = "hashicorp/kubernetes"
      version = "~> 2.30"
    }
  }
}

provider "azurerm" {
  features {}
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

variable "resource_group" {
  description = "Name of the resource group"
  type        = string
}

variable "location" {
  description = "Azure region"
  type        = string
}

variable "oidc_issuer_url" {
  description = "URL of the OIDC issuer of the AKS cluster"
  type        = string
}

resource "azurerm_eventhub_namespace" "orders" {
  name                = "orders-streaming"
  location            = var.location
  resource_group_name = var.resource_group
  # Premium, because Standard cannot add partitions later.
  sku      = "Premium"
  capacity = 1
}

resource "azurerm_eventhub" "orders" {
  name              = "orders"
  namespace_id      = azurerm_eventhub_namespace.orders.id
  partition_count   = var.replicas
  message_retention = 7
}

# The identity of lagwise, which may receive data, and nothing else.
resource "azurerm_user_assigned_identity" "lagwise" {
  name                = "lagwise"
  location            = var.location
  resource_group_name = var.resource_group
}

resource "azurerm_federated_identity_credential" "lagwise" {
  name                = "lagwise"
  resource_group_name = var.resource_group
  parent_id           = azurerm_user_assigned_identity.lagwise.id
  issuer              = var.oidc_issuer_url
  audience            = ["api://AzureADTokenExchange"]
  subject             = "system:serviceaccount:lagwise:lagwise"
}

resource "azurerm_role_assignment" "lagwise" {
  scope                = azurerm_eventhub_namespace.orders.id
  role_definition_name = "Azure Event Hubs Data Receiver"
  principal_id         = azurerm_user_assigned_identity.lagwise.principal_id
}

output "pod_identity_azure_client_id" {
  description = "podIdentity.azureClientId of the chart"
  value       = azurerm_user_assigned_identity.lagwise.client_id
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
