"""Jobs, files, pods and deployments of providers outside of the cluster, whichever provider it is."""
