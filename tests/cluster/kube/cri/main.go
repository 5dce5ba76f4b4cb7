// Command cri asks a node's container runtime for what the throw-away cluster needs: to pull, list and remove images, and to
// forget the pods of an earlier run. It speaks the interface that the kubelet speaks, so what it pulls is what the kubelet finds.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"go.opentelemetry.io/otel/trace/noop"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
	cri "k8s.io/cri-client/pkg"
	"k8s.io/klog/v2"
)

const usage = "usage: cri SOCKET (pull IMAGE… | images | remove IMAGE… | forget-pods)"

// connectTimeout bounds the start of containerd: the callers start it and then ask at once.
const connectTimeout = 60 * time.Second

// pullTimeout bounds one image: the trainer's dependencies are several gigabytes on a slow disk.
const pullTimeout = 20 * time.Minute

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	if err := run(context.Background(), "unix://"+os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintf(os.Stderr, "cri %s: %v\n", os.Args[2], err)
		os.Exit(1)
	}
}

func run(ctx context.Context, endpoint, command string, names []string) error {
	switch command {
	case "pull":
		return pull(ctx, endpoint, names)
	case "images":
		return list(ctx, endpoint)
	case "remove":
		return remove(ctx, endpoint, names)
	case "forget-pods":
		return forgetPods(ctx, endpoint)
	}
	return fmt.Errorf("unknown command; %s", usage)
}

func pull(ctx context.Context, endpoint string, names []string) error {
	logger := klog.FromContext(ctx)
	images, err := cri.NewRemoteImageService(endpoint, connectTimeout, noop.NewTracerProvider(), &logger)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	for _, name := range names {
		if _, err := images.PullImage(ctx, &runtime.ImageSpec{Image: name}, nil, nil); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func list(ctx context.Context, endpoint string) error {
	logger := klog.FromContext(ctx)
	images, err := cri.NewRemoteImageService(endpoint, connectTimeout, noop.NewTracerProvider(), &logger)
	if err != nil {
		return err
	}
	known, err := images.ListImages(ctx, nil)
	if err != nil {
		return err
	}
	for _, image := range known {
		for _, tag := range image.RepoTags {
			fmt.Println(tag)
		}
	}
	return nil
}

func remove(ctx context.Context, endpoint string, names []string) error {
	logger := klog.FromContext(ctx)
	images, err := cri.NewRemoteImageService(endpoint, connectTimeout, noop.NewTracerProvider(), &logger)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := images.RemoveImage(ctx, &runtime.ImageSpec{Image: name}); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// forgetPods removes every pod sandbox with its containers: after a node was killed they exist in the runtime's records only.
func forgetPods(ctx context.Context, endpoint string) error {
	logger := klog.FromContext(ctx)
	pods, err := cri.NewRemoteRuntimeService(endpoint, connectTimeout, noop.NewTracerProvider(), &logger)
	if err != nil {
		return err
	}
	known, err := pods.ListPodSandbox(ctx, nil)
	if err != nil {
		return err
	}
	for _, pod := range known {
		if err := pods.StopPodSandbox(ctx, pod.Id); err != nil {
			return fmt.Errorf("stop %s: %w", pod.Id, err)
		}
		if err := pods.RemovePodSandbox(ctx, pod.Id); err != nil {
			return fmt.Errorf("remove %s: %w", pod.Id, err)
		}
	}
	return nil
}
