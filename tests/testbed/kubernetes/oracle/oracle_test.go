// Package oracle runs the HPA controller of Kubernetes itself, on clients that a test scripts and under
// virtual time, and writes down what it decides at every sync.
package oracle

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/meta/testrestmapper"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	scalefake "k8s.io/client-go/scale/fake"
	core "k8s.io/client-go/testing"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	_ "k8s.io/kubernetes/pkg/apis/autoscaling/install"
	"k8s.io/kubernetes/pkg/controller/podautoscaler"
	"k8s.io/kubernetes/pkg/controller/podautoscaler/metrics"
	emapi "k8s.io/metrics/pkg/apis/external_metrics/v1beta1"
	emfake "k8s.io/metrics/pkg/client/external_metrics/fake"
)

const (
	namespace = "d"
	name      = "h"
)

// series is one line of the input: an HPA and what it meets, sync by sync.
type series struct {
	Spec        autoscalingv2.HorizontalPodAutoscalerSpec `json:"spec"`
	Replicas    int32                                     `json:"replicas"`
	SyncSeconds int64                                     `json:"syncSeconds"`
	ScaleToZero bool                                      `json:"scaleToZero"`
	Steps       []step                                    `json:"steps"`
}

// step is what holds at one sync.
type step struct {
	// Replaces the HPA's spec, when given.
	Spec *autoscalingv2.HorizontalPodAutoscalerSpec `json:"spec"`
	// Somebody else's write to the scale target, when given.
	Replicas *int32 `json:"replicas"`
	// The scale's status.replicas; as many as in its spec, when not given.
	StatusReplicas *int32 `json:"statusReplicas"`
	// The pods that the selector finds, and how many of them are ready.
	Pods  int `json:"pods"`
	Ready int `json:"ready"`
	// By metric, the items of the answer; a metric without them is an error.
	Metrics map[string][]string `json:"metrics"`
}

// sync is one line's part of the output: what the controller did.
type sync struct {
	Before     int32             `json:"before"`
	After      int32             `json:"after"`
	Stage      *int32            `json:"stage"`
	Metric     string            `json:"metric"`
	Desired    int32             `json:"desired"`
	Conditions map[string]string `json:"conditions"`
}

// proposals keeps what the controller logs of the metric stage; it has no other way to tell.
type proposals struct{ last *sync }

func (p *proposals) Init(logr.RuntimeInfo)          {}
func (p *proposals) Enabled(int) bool               { return true }
func (p *proposals) Error(error, string, ...any)    {}
func (p *proposals) WithValues(...any) logr.LogSink { return p }
func (p *proposals) WithName(string) logr.LogSink   { return p }
func (p *proposals) Info(_ int, message string, pairs ...any) {
	if p.last == nil || (message != "Proposing desired replicas" && message != "Proposing desired replicas from zero") {
		return
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		switch pairs[i] {
		case "desiredReplicas":
			replicas := pairs[i+1].(int32)
			p.last.Stage = &replicas
		case "metric":
			p.last.Metric = pairs[i+1].(string)
		}
	}
}

func TestOracle(t *testing.T) {
	klog.LogToStderr(false)
	klog.SetOutput(io.Discard)
	// They slow errors down by a clock that goes on between two series, where virtual time begins anew.
	utilruntime.ErrorHandlers = nil
	input, err := os.Open(os.Getenv("LAGWISE_ORACLE_SERIES"))
	if err != nil {
		t.Fatal(err)
	}
	defer input.Close()
	output, err := os.Create(os.Getenv("LAGWISE_ORACLE_SYNCS"))
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	mapper := testrestmapper.TestOnlyStaticRESTMapper(legacyscheme.Scheme)
	lines := bufio.NewReader(input)
	for number := 1; ; number++ {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			break
		}
		if err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		var given series
		if err := json.Unmarshal(line, &given); err != nil {
			t.Fatalf("series %d: %v", number, err)
		}
		if err := utilfeature.DefaultMutableFeatureGate.Set(fmt.Sprintf("HPAScaleToZero=%v", given.ScaleToZero)); err != nil {
			t.Fatal(err)
		}
		var seen []sync
		synctest.Test(t, func(t *testing.T) { seen, err = run(mapper, &given) })
		if err != nil && !errors.Is(err, io.EOF) {
			t.Fatalf("series %d: %v", number, err)
		}
		text, err := json.Marshal(seen)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := output.Write(append(text, '\n')); err != nil {
			t.Fatal(err)
		}
	}
}

// with is the object as the API server would keep it: with its defaults.
func with(spec autoscalingv2.HorizontalPodAutoscalerSpec) *autoscalingv2.HorizontalPodAutoscaler {
	hpa := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}, Spec: *spec.DeepCopy()}
	legacyscheme.Scheme.Default(hpa)
	return hpa
}

// scale is what the controller reads and writes.
type scale struct {
	given  step
	spec   int32
	syncs  []sync
	logged *proposals
}

func (s *scale) get(core.Action) (bool, runtime.Object, error) {
	s.syncs = append(s.syncs, sync{Before: s.spec, After: s.spec})
	s.logged.last = &s.syncs[len(s.syncs)-1]
	status := s.spec
	if s.given.StatusReplicas != nil {
		status = *s.given.StatusReplicas
	}
	return true, &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace},
		Spec:       autoscalingv1.ScaleSpec{Replicas: s.spec},
		Status:     autoscalingv1.ScaleStatus{Replicas: status, Selector: "app=h"},
	}, nil
}

func (s *scale) update(action core.Action) (bool, runtime.Object, error) {
	object := action.(core.UpdateAction).GetObject().(*autoscalingv1.Scale)
	s.spec = object.Spec.Replicas
	s.syncs[len(s.syncs)-1].After = s.spec
	return true, object, nil
}

func (s *scale) metric(action core.Action) (bool, runtime.Object, error) {
	wanted := action.GetResource().Resource
	values, known := s.given.Metrics[wanted]
	if !known {
		return true, nil, errors.New("unknown since 12:03:05")
	}
	list := &emapi.ExternalMetricValueList{}
	for _, value := range values {
		list.Items = append(list.Items, emapi.ExternalMetricValue{MetricName: wanted, Value: resource.MustParse(value)})
	}
	return true, list, nil
}

func pods(given step) []any {
	var all []any
	for i := range given.Pods {
		ready := corev1.ConditionFalse
		if i < given.Ready {
			ready = corev1.ConditionTrue
		}
		all = append(all, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("h-%d", i), Namespace: namespace, Labels: map[string]string{"app": "h"}},
			Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{
				{Type: corev1.PodReady, Status: ready},
			}},
		})
	}
	return all
}

// run lets a controller of its own, without any memory, meet a series.
func run(mapper meta.RESTMapper, given *series) ([]sync, error) {
	logged := &proposals{}
	// Its goroutines outlive the context by what they still wait for; time stands still once this returns.
	defer time.Sleep(10 * time.Minute)
	ctx, cancel := context.WithCancel(klog.NewContext(context.Background(), logr.New(logged)))
	defer cancel()
	clients := fake.NewSimpleClientset(with(given.Spec))
	target := &scale{spec: given.Replicas, logged: logged}
	scales := &scalefake.FakeScaleClient{}
	scales.AddReactor("get", "deployments", target.get)
	scales.AddReactor("update", "deployments", target.update)
	external := &emfake.FakeExternalMetricsClient{}
	external.AddReactor("list", "*", target.metric)
	shared := informers.NewSharedInformerFactory(clients, 0)
	period := time.Duration(given.SyncSeconds) * time.Second
	controller := podautoscaler.NewHorizontalController(ctx, clients.CoreV1(), scales, clients.AutoscalingV2(), mapper,
		metrics.NewRESTMetricsClient(nil, nil, external),
		shared.Autoscaling().V2().HorizontalPodAutoscalers(), shared.Core().V1().Pods(),
		period, 5*time.Minute, 0.1, time.Minute, time.Second)
	shared.Start(ctx.Done())
	go controller.Run(ctx, 1)

	// Half-way between two syncs everything is as the next one is to find it.
	time.Sleep(period / 2)
	hpas := clients.AutoscalingV2().HorizontalPodAutoscalers(namespace)
	for i, next := range given.Steps {
		target.given = next
		if next.Replicas != nil {
			target.spec = *next.Replicas
		}
		if err := shared.Core().V1().Pods().Informer().GetIndexer().Replace(pods(next), ""); err != nil {
			return nil, err
		}
		if next.Spec != nil {
			hpa, err := hpas.Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return nil, err
			}
			hpa.Spec = with(*next.Spec).Spec
			if _, err := hpas.Update(ctx, hpa, metav1.UpdateOptions{}); err != nil {
				return nil, err
			}
		}
		time.Sleep(period)
		if len(target.syncs) != i+1 {
			return nil, fmt.Errorf("%d syncs after %d steps", len(target.syncs), i+1)
		}
		hpa, err := hpas.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		done := &target.syncs[i]
		done.Desired = hpa.Status.DesiredReplicas
		done.Conditions = map[string]string{}
		for _, condition := range hpa.Status.Conditions {
			done.Conditions[string(condition.Type)] = fmt.Sprintf("%s %s", condition.Status, condition.Reason)
		}
	}
	return target.syncs, nil
}
