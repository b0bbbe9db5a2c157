# SPDX-License-Identifier: Apache-2.0
# Brings one version of the worker to every client that runs pagerd (meta.pagerd = "true").
# It runs on the host (raw_exec), as root; pagerd and its workers are systemd's, not Nomad's.
# The allocation runs once the host is drained or handed over to this version.

variable "version" {
  type    = string
  default = "0.4.0"
}

variable "upgrade_flags" {
  type        = string
  default     = ""
  description = "--handoff moves the live sessions, too; empty waits for them to leave"
}

variable "repository" {
  type        = string
  default     = "https://packages.example.org/pager-worker"
  description = "Where VERSION/pager-worker is"
}

job "pager-worker" {
  type        = "system"
  datacenters = ["*"]

  constraint {
    attribute = "${meta.pagerd}"
    value     = "true"
  }

  # A host at a time, and the next one when this one's allocation runs.
  update {
    max_parallel = 1
    stagger      = "30s"
  }

  group "worker" {
    # The version does not start here: stop, and let somebody look.
    restart {
      attempts = 0
      mode     = "fail"
    }

    task "install" {
      driver = "raw_exec"

      lifecycle {
        hook    = "prestart"
        sidecar = false
      }

      artifact {
        source      = "${var.repository}/${var.version}/pager-worker"
        destination = "local/"
      }

      config {
        command = "/bin/sh"
        args = ["-ec", <<-END
          to=/usr/libexec/pagerd/workers/${var.version}
          install -d -m 755 "$to"
          install -m 755 local/pager-worker "$to/.pager-worker"
          mv "$to/.pager-worker" "$to/pager-worker"
          pagerctl upgrade ${var.version} ${var.upgrade_flags}
          until /usr/libexec/pagerd/upgrade-settled ${var.version}; do sleep 10; done
        END
        ]
      }

      resources {
        cpu    = 20
        memory = 32
      }
    }

    task "settled" {
      driver = "raw_exec"

      config {
        command = "/bin/sh"
        args    = ["-c", "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait $!; done"]
      }

      resources {
        cpu    = 10
        memory = 16
      }
    }
  }
}
