// Kubeflow's Trainer for tests: the controllers and webhooks of cmd/trainer-controller-manager.
//
// Not that command itself: it looks for the certificate of its webhooks in one fixed folder of the machine, /tmp/k8s-webhook-server, which is
// not ours to write, and makes it by itself for a Service in the cluster. This one takes it from $TMPDIR, as controller-runtime does.
package main

import (
	"flag"
	"log"

	"github.com/kubeflow/trainer/v2/pkg/apis/trainer/v1alpha1"
	"github.com/kubeflow/trainer/v2/pkg/controller"
	"github.com/kubeflow/trainer/v2/pkg/runtime/core"
	"github.com/kubeflow/trainer/v2/pkg/webhooks"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	reconcilers "sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	jobset "sigs.k8s.io/jobset/api/jobset/v1alpha2"
	scheduling "sigs.k8s.io/scheduler-plugins/apis/scheduling/v1alpha1"
)

func main() {
	probes := flag.String("health-probe-bind-address", "", "host:port of the probes")
	port := flag.Int("webhook-server-port", 0, "of 127.0.0.1, for the webhooks")
	flag.Parse()
	ctrl.SetLogger(zap.New())

	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, v1alpha1.AddToScheme, jobset.AddToScheme, scheduling.AddToScheme,
	} {
		must("scheme", add(scheme))
	}
	manager, err := ctrl.NewManager(ctrl.GetConfigOrDie(), ctrl.Options{
		Scheme:                 scheme,
		Client:                 client.Options{Cache: &client.CacheOptions{Unstructured: true}},
		Metrics:                server.Options{BindAddress: "0"},
		WebhookServer:          webhook.NewServer(webhook.Options{Host: "127.0.0.1", Port: *port}),
		HealthProbeBindAddress: *probes,
	})
	must("manager", err)
	must("healthz", manager.AddHealthzCheck("healthz", healthz.Ping))
	must("readyz", manager.AddReadyzCheck("readyz", manager.GetWebhookServer().StartedChecker()))

	ctx := ctrl.SetupSignalHandler()
	runtimes, err := core.New(ctx, manager.GetClient(), manager.GetFieldIndexer())
	must("runtimes", err)
	kind, err := controller.SetupControllers(manager, runtimes, reconcilers.Options{})
	must("controller of "+kind, err)
	kind, err = webhooks.Setup(manager, runtimes)
	must("webhook of "+kind, err)
	must("manager", manager.Start(ctx))
}

func must(what string, err error) {
	if err != nil {
		log.Fatalf("%s: %v", what, err)
	}
}
