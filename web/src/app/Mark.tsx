/** The segno: an S with a stroke through it and two dots, as in a score. */
export function Mark() {
  return (
    <svg viewBox="0 0 32 32" fill="none" aria-hidden="true">
      <g stroke="currentColor" strokeLinecap="round">
        <path
          d="M22.6 9.6C22.1 6.2 18.9 4.200 15.600 4.600c-3.700.4-6 3.300-5.300 6.500.6 2.800 3.100 4 5.800 5 2.900 1.100 5.200 2.300 5.700 5 .6 3.200-1.800 6-5.400 6.300-3.400.3-6.500-1.800-6.900-5.200"
          strokeWidth="3.2"
        />
        <path d="M25.5 6 6.5 26" strokeWidth="2" />
      </g>
      <g fill="currentColor">
        <circle cx="7.2" cy="15.2" r="2" />
        <circle cx="24.8" cy="16.8" r="2" />
      </g>
    </svg>
  );
}
