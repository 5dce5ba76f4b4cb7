"""Many jobs at providers outside of the cluster at once, of which one is slow and one dead."""
