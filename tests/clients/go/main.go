// What a controller built with client-go does, against the cluster of $KUBECONFIG: leader election,
// shared informers, a work queue, server-side apply. Prints one line per chapter that held.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/util/workqueue"
)

const (
	namespace = "go-client"
	bound     = time.Minute
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 3*bound)
	defer cancel()
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	must(err)
	// As Kubernetes' own components ask.
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	client := kubernetes.NewForConfigOrDie(config)

	_, err = client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{Name: namespace},
	}, metav1.CreateOptions{})
	must(err)
	chapter("leader election", elect(ctx, client))
	chapter("controller", control(ctx, client))
	chapter("apply", apply(ctx, client))
	must(client.CoreV1().Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{}))
	chapter("clean up", wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, bound, true,
		func(ctx context.Context) (bool, error) {
			_, err := client.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
			return apierrors.IsNotFound(err), nil
		}))
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func chapter(name string, err error) {
	if err != nil {
		must(fmt.Errorf("%s: %w", name, err))
	}
	fmt.Println("ok", name)
}

// elect leads and lets go.
func elect(ctx context.Context, client kubernetes.Interface) error {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Name: "flow", Namespace: namespace},
		Client:     client.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: "flow-1"},
	}
	led := false
	leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
		Lock:            lock,
		ReleaseOnCancel: true,
		LeaseDuration:   15 * time.Second,
		RenewDeadline:   10 * time.Second,
		RetryPeriod:     2 * time.Second,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) {
				led = renewed(ctx, client) == nil
				cancel()
			},
			OnStoppedLeading: func() {},
		},
	})
	if !led {
		return fmt.Errorf("never led")
	}
	lease, err := client.CoordinationV1().Leases(namespace).Get(context.Background(), "flow", metav1.GetOptions{})
	if err != nil {
		return err
	}
	if holder := lease.Spec.HolderIdentity; holder == nil || *holder != "" {
		return fmt.Errorf("the lease was not released: %v", lease.Spec)
	}
	return nil
}

// renewed waits until the lease was renewed once. Who lets go while a renewal is under way cannot know whether
// it will still arrive, and may find that its release came too late.
func renewed(ctx context.Context, client kubernetes.Interface) error {
	named := metav1.ListOptions{FieldSelector: "metadata.name=flow"}
	watch, err := client.CoordinationV1().Leases(namespace).Watch(ctx, named)
	if err != nil {
		return err
	}
	defer watch.Stop()
	for event := range watch.ResultChan() {
		lease, ok := event.Object.(*coordinationv1.Lease)
		if ok && lease.Spec.RenewTime.After(lease.Spec.AcquireTime.Time) {
			return nil
		}
	}
	return fmt.Errorf("the watch of the lease ended")
}

// control keeps an annotation on every ConfigMap labelled flow=yes, from a shared informer.
func control(ctx context.Context, client kubernetes.Interface) error {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace))
	maps := factory.Core().V1().ConfigMaps()
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[string]())
	defer queue.ShutDown()
	enqueue := func(object any) {
		if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(object); err == nil {
			queue.Add(key)
		}
	}
	maps.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    enqueue,
		UpdateFunc: func(_, object any) { enqueue(object) },
	})
	factory.Start(ctx.Done())
	for kind, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return fmt.Errorf("%v not synced", kind)
		}
	}
	go func() {
		for {
			key, shutdown := queue.Get()
			if shutdown {
				return
			}
			_, name, _ := cache.SplitMetaNamespaceKey(key)
			object, err := maps.Lister().ConfigMaps(namespace).Get(name)
			if err == nil && object.Labels["flow"] == "yes" && object.Annotations["seen"] == "" {
				patch := []byte(`{"metadata":{"annotations":{"seen":"yes"}}}`)
				_, err = client.CoreV1().ConfigMaps(namespace).
					Patch(ctx, name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
			}
			if err != nil && !apierrors.IsNotFound(err) {
				queue.AddRateLimited(key)
			} else {
				queue.Forget(key)
			}
			queue.Done(key)
		}
	}()
	for number := range 20 {
		_, err := client.CoreV1().ConfigMaps(namespace).Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("m%d", number), Labels: map[string]string{"flow": "yes"}},
		}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
	}
	return wait.PollUntilContextCancel(ctx, 20*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		list, err := client.CoreV1().ConfigMaps(namespace).List(ctx, metav1.ListOptions{LabelSelector: "flow=yes"})
		if err != nil {
			return false, err
		}
		for _, item := range list.Items {
			if item.Annotations["seen"] != "yes" {
				return false, nil
			}
		}
		return len(list.Items) == 20, nil
	})
}

// apply owns fields and runs into another owner.
func apply(ctx context.Context, client kubernetes.Interface) error {
	maps := client.CoreV1().ConfigMaps(namespace)
	wanted := func(value string) *applycorev1.ConfigMapApplyConfiguration {
		return applycorev1.ConfigMap("applied", namespace).WithData(map[string]string{"k": value})
	}
	if _, err := maps.Apply(ctx, wanted("1"), metav1.ApplyOptions{FieldManager: "one"}); err != nil {
		return err
	}
	_, err := maps.Apply(ctx, wanted("2"), metav1.ApplyOptions{FieldManager: "two"})
	if !apierrors.IsConflict(err) {
		return fmt.Errorf("no conflict: %v", err)
	}
	taken, err := maps.Apply(ctx, wanted("2"), metav1.ApplyOptions{FieldManager: "two", Force: true})
	if err != nil {
		return err
	}
	extracted, err := applycorev1.ExtractConfigMap(taken, "two")
	if err != nil {
		return err
	}
	if extracted.Data["k"] != "2" {
		return fmt.Errorf("owned by two: %v", extracted.Data)
	}
	return nil
}
